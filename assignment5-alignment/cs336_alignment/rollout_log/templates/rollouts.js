"use strict";
// Everything from a rollout reaches the page as text (textContent, values, attributes), never as HTML.
const FIELDS = ["step", "prompt", "answer", "response", "reward", "format", "right", "advantage", "length", "finish"];
const PAGE = { rollouts: 25, groups: 10 }; // cards shown at a time: thousands of them would make the page slow
const CURVES = { reward: "mean reward", format_reward: "share in the right form", length: "mean length (tokens)" };
const TAGS = /(<\/?(?:think|answer)>)/;
const UNSEEN = /((?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\u2028\u2029\p{Cs}])/u; // the joiners belong to emoji and Persian
const { prompts, curves } = JSON.parse(document.getElementById("facts").textContent);
const rollouts = [];
for (const chunk of document.querySelectorAll("script.rollouts")) {
  for (const row of JSON.parse(chunk.textContent)) {
    rollouts.push(Object.fromEntries(FIELDS.map((name, index) => [name, row[index]])));
  }
}
const groups = [];
const groupOf = new Map();
for (const one of rollouts) {
  const key = `${one.step} ${one.prompt}`;
  if (!groupOf.has(key)) {
    const group = { step: one.step, prompt: one.prompt, answer: one.answer, members: [] };
    groupOf.set(key, group);
    groups.push(group);
  }
  one.group = groupOf.get(key);
  one.group.members.push(one);
}
for (const group of groups) {
  for (const name of ["reward", "advantage", "length"]) group[name] = mean(group.members, name);
  const rewards = new Set(group.members.map((one) => one.reward));
  group.mixed = rewards.size > 1;
}

const [step, outcome, order, search, list, more, chosenPrompt] = [
  "step", "outcome", "order", "search", "list", "more", "prompt",
].map((id) => document.getElementById(id));
const tabs = [...document.querySelectorAll("[data-view]")];
const state = { view: "rollouts", prompt: -1 };
let found = [];
let shown = 0;

function mean(members, name) {
  const values = members.map((one) => one[name]).filter((value) => value !== null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function outcomeOf(one) {
  if (one.reward > 0) return "right";
  return one.format > 0 ? "wrong" : "form";
}

const OUTCOMES = { right: "rewarded", wrong: "wrong answer", form: "wrong form" };

function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

function number(value) {
  return value === null ? "–" : Number(value.toFixed(3)).toLocaleString("en").replace("-", "−");
}

function visible(text) {
  return text.split(UNSEEN).map((part, index) => {
    if (index % 2 === 0) return document.createTextNode(part);
    return element("span", "control", `U+${part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
  });
}

// The text with its thought and its answer marked; `inside` is the tag that is open where it begins.
function highlighted(text, inside = "") {
  const pieces = [];
  for (const part of text.split(TAGS)) {
    if (TAGS.test(part)) {
      inside = part.startsWith("</") ? "" : part.slice(1, -1);
      pieces.push(element("span", "tag", part));
    } else if (part) {
      pieces.push(inside ? element("span", inside, ...visible(part)) : element("span", "", ...visible(part)));
    }
  }
  return pieces;
}

function response(one) {
  const opened = /<(think|answer)>\s*$/.exec(prompts[one.prompt]);
  return element("pre", "response", ...highlighted(one.response, opened ? opened[1] : ""));
}

function fact(name, value) {
  return element("span", "", `${name} `, element("b", "", value));
}

function button(text, action) {
  const made = element("button", "", text);
  made.type = "button";
  made.onclick = action;
  return made;
}

function showPrompt(index) {
  state.prompt = state.prompt === index ? -1 : index;
  step.value = "";
  update();
}

function showGroup(one) {
  state.view = "groups";
  state.prompt = one.prompt;
  step.value = String(one.step);
  update();
}

function actions(one, isGroup) {
  const made = element("span", "actions");
  if (!isGroup) made.append(button("group", () => showGroup(one)), " ");
  made.append(button("all steps", () => showPrompt(one.prompt)));
  return made;
}

function rolloutCard(one) {
  const kind = outcomeOf(one);
  const head = element("h2", "", element("span", "badge", OUTCOMES[kind]), fact("step", String(one.step)));
  head.append(fact("reward", number(one.reward)));
  if (one.advantage !== null) head.append(fact("advantage", number(one.advantage)));
  if (one.length !== null) head.append(fact("tokens", number(one.length)));
  if (one.answer) head.append(fact("true answer", one.answer));
  if (one.finish === "length") head.append(element("span", "", "cut off"));
  head.append(actions(one, false));
  const prompt = element("pre", "prompt", ...visible(prompts[one.prompt]));
  return element("article", kind, head, prompt, response(one));
}

function groupCard(group) {
  const members = group.members.filter(matches);
  const right = group.members.filter((one) => one.reward > 0).length;
  const head = element("h2", "", fact("step", String(group.step)), fact("mean reward", number(group.reward)));
  head.append(fact("rewarded", `${right} of ${group.members.length}`), fact("mean tokens", number(group.length)));
  if (group.answer) head.append(fact("true answer", group.answer));
  head.append(actions(group, true));
  const titles = [["reward", "number"], ["advantage", "number"], ["tokens", "number"], ["", ""], ["response", ""]];
  const table = element("table", "", element("tr", "", ...titles.map(([name, kind]) => element("th", kind, name))));
  for (const one of ordered(members)) {
    const cells = [one.reward, one.advantage, one.length].map((value) => element("td", "number", number(value)));
    const kind = outcomeOf(one);
    const badge = element("td", "", element("span", `badge ${kind}`, OUTCOMES[kind]));
    table.append(element("tr", "", ...cells, badge, element("td", "", response(one))));
  }
  const prompt = element("pre", "prompt", ...visible(prompts[group.prompt]));
  return element("article", "", head, prompt, element("div", "scroll", table));
}

function haystack(one) {
  one.haystack ??= [prompts[one.prompt], one.response, one.answer].join("\n").toLowerCase();
  return one.haystack;
}

let wanted = {};
function matches(one) {
  if (wanted.step !== null && one.step !== wanted.step) return false;
  if (state.prompt >= 0 && one.prompt !== state.prompt) return false;
  if (wanted.outcome === "mixed") {
    if (!one.group.mixed) return false;
  } else if (wanted.outcome === "cut") {
    if (one.finish !== "length") return false;
  } else if (wanted.outcome && outcomeOf(one) !== wanted.outcome) return false;
  return !wanted.words || haystack(one).includes(wanted.words);
}

function ordered(entries) {
  if (!order.value) return entries;
  const name = order.value.slice(1);
  const sign = order.value[0] === "-" ? -1 : 1;
  const missing = (entry) => Number(entry[name] === null);
  return [...entries].sort((a, b) => missing(a) - missing(b) || sign * (a[name] - b[name]));
}

function showMore() {
  const make = state.view === "groups" ? groupCard : rolloutCard;
  const cards = found.slice(shown, shown + PAGE[state.view]).map(make);
  for (const card of cards) card.tabIndex = -1;
  list.append(...cards);
  shown += cards.length;
  more.hidden = shown >= found.length;
  more.textContent = `Show ${Math.min(PAGE[state.view], found.length - shown)} more`;
}

function update() {
  wanted = {
    step: step.value === "" ? null : Number(step.value),
    outcome: outcome.value,
    words: search.value.trim().toLowerCase(),
  };
  const isGroups = state.view === "groups";
  const all = isGroups ? groups : rollouts;
  found = ordered(all.filter(isGroups ? (group) => group.members.some(matches) : matches));
  for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.view === state.view));
  chosenPrompt.hidden = state.prompt < 0;
  if (state.prompt >= 0) chosenPrompt.textContent = `✕ ${prompts[state.prompt]}`;
  const [part, whole] = [found.length, all.length].map((count) => count.toLocaleString("en"));
  document.getElementById("count").textContent = `${part} of ${whole} ${state.view}`;
  list.replaceChildren();
  shown = 0;
  showMore();
  drawCurves();
  remember();
}

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const WIDTH = 320, HEIGHT = 130, LEFT = 34, BOTTOM = 18, TOP = 8;

function drawCurve(name, title) {
  const points = curves[name].filter(([, value]) => value !== null);
  if (!points.length) return null;
  const steps = points.map(([at]) => at);
  const [first, last] = [steps[0], steps[steps.length - 1]];
  const values = points.map(([, value]) => value);
  const low = Math.min(0, ...values);
  const high = Math.max(name === "length" ? 1 : low + 1, ...values);
  const x = (at) => LEFT + ((WIDTH - LEFT - 6) * (at - first)) / Math.max(1, last - first);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low));
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  for (const value of [low, (low + high) / 2, high]) {
    drawing.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 6, y1: y(value), y2: y(value) }));
    drawing.append(svg("text", { x: LEFT - 5, y: y(value) + 3, "text-anchor": "end" }, number(value)));
  }
  drawing.append(svg("text", { x: LEFT, y: HEIGHT - 4 }, `step ${first}`));
  drawing.append(svg("text", { x: WIDTH - 6, y: HEIGHT - 4, "text-anchor": "end" }, String(last)));
  if (step.value !== "") {
    const at = x(Number(step.value));
    drawing.append(svg("line", { class: "chosen", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
  }
  drawing.append(svg("polyline", { class: "curve", points: points.map(([at, value]) => `${x(at)},${y(value)}`).join(" ") }));
  if (points.length === 1) drawing.append(svg("circle", { cx: x(first), cy: y(values[0]), r: 3 }));
  drawing.onclick = (event) => {
    const box = drawing.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    const nearest = steps.reduce((best, one) => (Math.abs(x(one) - at) < Math.abs(x(best) - at) ? one : best));
    step.value = step.value === String(nearest) ? "" : String(nearest);
    update();
  };
  const chosen = points.find(([at]) => String(at) === step.value);
  const note = chosen ? `${title}: ${number(chosen[1])} at step ${chosen[0]}` : title;
  return element("figure", "", drawing, element("figcaption", "", note));
}

function drawCurves() {
  const drawn = Object.entries(CURVES).map(([name, title]) => drawCurve(name, title));
  document.getElementById("curves").replaceChildren(...drawn.filter((figure) => figure !== null));
}

// What is chosen stands in the address, so that a view can be kept and sent.
const fields = [step, outcome, order, search];
function remember() {
  const view = new URLSearchParams();
  if (state.view !== "rollouts") view.set("view", state.view);
  if (state.prompt >= 0) view.set("prompt", state.prompt);
  for (const field of fields) if (field.value) view.set(field.id, field.value);
  history.replaceState(null, "", `#${view}`);
}

function recall() {
  const view = new URLSearchParams(location.hash.slice(1));
  if (view.get("view") === "groups") state.view = "groups";
  const prompt = Number(view.get("prompt") ?? -1);
  if (Number.isInteger(prompt) && prompt < prompts.length) state.prompt = prompt;
  for (const field of fields) field.value = view.get(field.id) ?? "";
  for (const field of [step, outcome, order]) if (field.selectedIndex < 0) field.value = "";
}

function moveStep(by) {
  const index = Math.min(Math.max(step.selectedIndex + by, 0), step.options.length - 1);
  if (index === step.selectedIndex) return;
  step.selectedIndex = index;
  update();
}

function moveCard(by) {
  const cards = [...list.children];
  const at = cards.indexOf(document.activeElement.closest?.("article"));
  if (by > 0 && at === cards.length - 1 && !more.hidden) {
    showMore();
    cards.splice(0, cards.length, ...list.children);
  }
  const next = cards[Math.min(Math.max(at + by, 0), cards.length - 1)];
  next?.focus({ preventScroll: true });
  next?.scrollIntoView({ block: "center" });
}

function toggleView() {
  state.view = state.view === "groups" ? "rollouts" : "groups";
  update();
}

function clear() {
  for (const field of fields) field.value = "";
  state.prompt = -1;
  document.activeElement.blur();
  update();
}

function promptOfCard() {
  const at = [...list.children].indexOf(document.activeElement.closest?.("article"));
  if (at >= 0) showPrompt(found[at].prompt);
}

const KEYS = {
  "/": () => search.focus(),
  j: () => moveCard(1),
  k: () => moveCard(-1),
  "[": () => moveStep(-1),
  "]": () => moveStep(1),
  g: toggleView,
  p: promptOfCard,
};
document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") clear();
  else if (!event.target.matches("input, select") && KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
};

for (const tab of tabs) {
  tab.onclick = () => {
    state.view = tab.dataset.view;
    update();
  };
}
let pause = 0;
search.oninput = () => {
  clearTimeout(pause);
  pause = setTimeout(update, 150);
};
for (const field of [step, outcome, order]) field.onchange = update;
document.getElementById("previous").onclick = () => moveStep(-1);
document.getElementById("next").onclick = () => moveStep(1);
chosenPrompt.onclick = () => {
  state.prompt = -1;
  update();
};
more.onclick = showMore;
recall();
update();
