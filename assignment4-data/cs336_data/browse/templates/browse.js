"use strict";
// Everything from a document reaches the page as text (textContent, values, attributes), never as HTML.
const PAGE = 25; // documents shown at a time: thousands of them would make the page slow
const { filters, documents } = JSON.parse(document.getElementById("data").textContent);
const search = document.getElementById("search");
const language = document.getElementById("language");
const order = document.getElementById("order");
const list = document.getElementById("documents");
const more = document.getElementById("more");
const template = document.getElementById("document");
const tabs = [...document.querySelectorAll("[data-tab]")];
const rows = [...document.querySelectorAll("[data-filter]")];
const state = { tab: "all", filter: -1 };
let found = [];
let shown = 0;

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function piece(part) {
  if (typeof part === "string") return document.createTextNode(part);
  const [kind, text, label] = part;
  const made = element(kind === "span" || kind === "mask" ? "mark" : "span", kind, text);
  if (label) made.title = label;
  return made;
}

function haystack(one) {
  one.haystack ??= [one.url, one.reason, one.pieces.map((part) => (typeof part === "string" ? part : part[1])).join("")]
    .join("\n").toLowerCase();
  return one.haystack;
}

function sortKey(one) {
  const name = order.value.slice(1);
  if (name === "length") return one.length;
  const score = one.scores.find(([title]) => `score ${title}` === name);
  return score ? score[2] : null;
}

function fact(name, value) {
  const pair = document.createElement("div");
  pair.append(element("dt", "", name), element("dd", "", value));
  return pair;
}

function card(one) {
  const article = template.content.cloneNode(true).firstElementChild;
  const badge = article.querySelector(".badge");
  badge.textContent = one.filter < 0 ? "kept" : filters[one.filter];
  badge.classList.toggle("kept", one.filter < 0);
  article.querySelector(".url").textContent = one.url;
  article.querySelector(".reason").textContent = one.reason;
  if (one.labels.length) {
    const labels = one.labels.map(([label, count]) => (count > 1 ? `${label} (${count})` : label));
    article.querySelector(".labels").textContent = `highlighted: ${labels.join(", ")}`;
  }
  const text = article.querySelector(".text");
  text.append(...one.pieces.map(piece));
  const unfold = article.querySelector(".unfold");
  unfold.onclick = () => {
    unfold.textContent = text.classList.toggle("open") ? "Show less" : "Show the whole excerpt";
  };
  const facts = article.querySelector("dl");
  facts.append(fact("characters", one.length.toLocaleString("en")));
  if (one.language) facts.append(fact("language", one.language));
  for (const [name, value] of one.scores) facts.append(fact(name, value));
  for (const [name, value] of one.masked) facts.append(fact(`masked ${name}`, value));
  if (one.source) facts.append(fact("source", one.offset ? `${one.source} at ${one.offset}` : one.source));
  if (one.id) facts.append(fact("id", one.id));
  return article;
}

function showMore() {
  const cards = found.slice(shown, shown + PAGE).map(card);
  list.append(...cards);
  shown += cards.length;
  for (const one of cards) {
    const text = one.querySelector(".text");
    const isCut = text.scrollHeight > text.clientHeight + 4;
    text.classList.toggle("cut", isCut);
    one.querySelector(".unfold").hidden = !isCut;
  }
  more.hidden = shown >= found.length;
  more.textContent = `Show ${Math.min(PAGE, found.length - shown)} more`;
}

function update() {
  const words = search.value.trim().toLowerCase();
  found = documents.filter(
    (one) =>
      (state.tab === "all" || (state.tab === "kept") === one.filter < 0) &&
      (state.filter < 0 || one.filter === state.filter) &&
      (!language.value || one.language === language.value) &&
      (!words || haystack(one).includes(words)),
  );
  if (order.value) {
    const sign = order.value[0] === "-" ? -1 : 1;
    const keyed = found.map((one) => [sortKey(one), one]);
    keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * (a - b)));
    found = keyed.map(([, one]) => one);
  }
  for (const tab of tabs) tab.setAttribute("aria-pressed", tab.dataset.tab === state.tab);
  for (const row of rows) row.setAttribute("aria-pressed", Number(row.dataset.filter) === state.filter);
  document.getElementById("count").textContent = `${found.length.toLocaleString("en")} of ${documents.length.toLocaleString("en")}`;
  list.replaceChildren();
  shown = 0;
  showMore();
  remember();
}

// What is chosen stands in the address, so that a view can be kept and sent.
function remember() {
  const view = new URLSearchParams();
  if (state.tab !== "all") view.set("tab", state.tab);
  if (state.filter >= 0) view.set("filter", filters[state.filter]);
  for (const field of [search, language, order]) if (field.value) view.set(field.id, field.value);
  history.replaceState(null, "", `#${view}`);
}

function recall() {
  const view = new URLSearchParams(location.hash.slice(1));
  const tab = view.get("tab");
  if (tabs.some((one) => one.dataset.tab === tab)) state.tab = tab;
  state.filter = filters.indexOf(view.get("filter"));
  for (const field of [search, language, order]) field.value = view.get(field.id) ?? "";
  for (const field of [language, order]) if (field.selectedIndex < 0) field.value = "";
}

for (const tab of tabs) {
  tab.onclick = () => {
    state.tab = tab.dataset.tab;
    if (state.tab === "kept") state.filter = -1;
    update();
  };
}
for (const row of rows) {
  row.onclick = () => {
    const chosen = Number(row.dataset.filter);
    state.filter = state.filter === chosen ? -1 : chosen;
    if (state.tab === "kept") state.tab = "all";
    update();
  };
}
let pause = 0;
search.oninput = () => {
  clearTimeout(pause);
  pause = setTimeout(update, 150);
};
language.onchange = update;
order.onchange = update;
more.onclick = showMore;
recall();
update();
