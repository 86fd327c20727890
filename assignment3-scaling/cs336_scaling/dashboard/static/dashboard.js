"use strict";
/* Asks the server for the key's data every few seconds and shows it. Everything is set as text, never as markup. */

(() => {
  const base = document.body.dataset.base;
  const pollMs = Number(document.body.dataset.pollMs);
  const KEY = "cs336-api-key", EDITION = "cs336-edition";
  const $ = id => document.getElementById(id);
  let shown = null, timer = null, generation = 0;
  let order = {column: "number", ascending: false};

  const storedKey = () => sessionStorage.getItem(KEY);
  const storedEdition = () => sessionStorage.getItem(EDITION);

  /* ---- numbers as text ---- */
  const integer = new Intl.NumberFormat("en-US", {maximumFractionDigits: 0});
  const loss = value => value === null ? "" : value.toFixed(4);
  const si = value => value === null ? "" : new Intl.NumberFormat(
    "en-US", {notation: "compact", maximumSignificantDigits: 3}).format(value);
  const power = value => value === null ? "" : value === 0 ? "0" : value.toExponential(2).replace("e+", "e");
  const short = value => value === null ? "" : String(Number(value.toPrecision(3)));
  function duration(seconds) {
    if (seconds === null) return "";
    const whole = Math.round(seconds), pad = n => String(n).padStart(2, "0");
    return `${Math.floor(whole / 3600)}:${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)}`;
  }
  const amount = (value, unit) => unit === "FLOPs" ? power(value) + " FLOPs" : `${duration(value)} (${integer.format(value)} s)`;

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }
  const chip = status => element("span", status, "chip " + status);
  const none = text => element("p", text, "none");

  /* ---- parts of the page ---- */
  function showBudget(budget) {
    const total = budget.total || 1;
    const [used, reserved] = $("budget-bar").children;
    used.style.width = Math.min(100, 100 * budget.used / total) + "%";
    reserved.style.width = Math.min(100, 100 * budget.reserved / total) + "%";
    for (const part of ["used", "reserved", "left", "total"]) {
      $("budget-" + part).textContent = amount(budget[part], budget.unit);
    }
    const percent = part => (100 * budget[part] / total).toFixed(1) + " %";
    $("budget-bar").setAttribute("aria-label", `${percent("used")} used, ${percent("reserved")} reserved`);
  }

  function facts(pairs) {
    const list = element("dl", undefined, "facts");
    for (const [name, value] of pairs) list.append(element("dt", name), element("dd", value));
    return list;
  }

  function showBest(run) {
    if (!run) return $("best").replaceChildren(none("No run is completed yet."));
    const headline = element("div", loss(run.loss), "headline");
    headline.append(element("small", "nats per token"));
    $("best").replaceChildren(headline, facts([
      ["run", run.name], ["parameters", si(run.parameters)], ["shape", run.shape], ["tokens", si(run.tokens)],
      ["batch, peak lr", `${run.batch_size}, ${short(run.learning_rate)}`],
    ]));
  }

  function showQueue(runs) {
    const waiting = runs.filter(run => run.status === "running" || run.status === "queued");
    waiting.sort((a, b) => (a.queue_position ?? 0) - (b.queue_position ?? 0) || a.number - b.number);
    if (!waiting.length) return $("queue").replaceChildren(none("Nothing waits or runs."));
    $("queue").replaceChildren(...waiting.map(run => {
      const item = element("li");
      const what = run.status === "running"
        ? `${Math.round(100 * run.progress)} %, ${duration(run.runtime_seconds)}` : `place ${run.queue_position ?? "?"}`;
      item.append(element("span", `${run.name} · ${si(run.parameters)}`, "what"), element("span", what), chip(run.status));
      return item;
    }));
  }

  function showFinal(final, edition) {
    if (edition === "2025") return $("final").replaceChildren(none("The 2025 edition takes none over its API."));
    if (!final) return $("final").replaceChildren(none("Nothing is handed in yet."));
    const headline = element("div", loss(final.predicted_final_loss), "headline");
    headline.append(element("small", "predicted loss"));
    $("final").replaceChildren(headline, facts([
      ["parameters", si(final.parameters)], ["shape", final.shape], ["tokens", si(final.tokens)],
      ["handed in", new Date(final.submitted_at).toLocaleString()],
    ]));
  }

  function curvesOf(data) {
    const finished = data.runs.filter(run => run.val_losses.length);
    const running = finished.filter(run => run.status === "running");
    const rest = finished.filter(run => run.status !== "running").slice(-20);
    return [...rest, ...running].sort((a, b) => a.compute - b.compute || a.number - b.number).map(run => ({
      x: run.val_tokens, y: run.val_losses, label: `${run.name} · ${si(run.parameters)}`,
      best: run === data.best, running: run.status === "running",
    }));
  }

  /* ---- the table: name, heading, value to sort by, cell ---- */
  function withChip(run) {
    const cell = element("td", undefined, "text");
    cell.append(chip(run.status));
    return cell;
  }
  function note(run) {
    const cell = element("td", run.message, "text error");
    cell.title = run.message;
    return cell;
  }
  const cost = run => run.cost === null ? "≤ " + integer.format(run.reserved)
    : run.cost > 1e6 ? power(run.cost) : integer.format(run.cost);
  const cell = text => run => element("td", text(run));
  const COLUMNS = [
    ["number", "run", run => run.number, run => element("td", run.name, "text")],
    ["status", "status", run => run.status, withChip],
    ["parameters", "parameters", run => run.parameters, cell(run => integer.format(run.parameters))],
    ["shape", "layers × width", run => run.shape, cell(run => run.shape)],
    ["batch_size", "batch", run => run.batch_size, cell(run => integer.format(run.batch_size))],
    ["learning_rate", "peak lr", run => run.learning_rate, cell(run => short(run.learning_rate))],
    ["tokens", "tokens", run => run.tokens, cell(run => si(run.tokens))],
    ["compute", "train FLOPs", run => run.compute, cell(run => power(run.compute))],
    ["loss", "loss", run => run.loss ?? Infinity, cell(run => loss(run.loss ?? run.val_losses.at(-1) ?? null))],
    ["cost", "charged", run => run.cost ?? run.reserved, cell(cost)],
    ["message", "note", run => run.message, note],
  ];
  const TEXT = new Set(["number", "status", "message"]);

  function showTable(runs) {
    const head = element("tr");
    for (const [name, title] of COLUMNS) {
      const cell = element("th", undefined, TEXT.has(name) ? "text" : "");
      const button = element("button", title);
      button.type = "button";
      cell.scope = "col";
      if (order.column === name) cell.setAttribute("aria-sort", order.ascending ? "ascending" : "descending");
      button.addEventListener("click", () => {
        order = {column: name, ascending: order.column === name ? !order.ascending : true};
        showTable(runs);
      });
      cell.append(button);
      head.append(cell);
    }
    const value = COLUMNS.find(([name]) => name === order.column)[2];
    const compare = (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a.number - b.number);
    const sorted = [...runs].sort((a, b) => order.ascending ? compare(a, b) : compare(b, a));
    const focused = document.activeElement?.closest("#experiments th")?.cellIndex;
    document.querySelector("#experiments thead").replaceChildren(head);
    document.querySelector("#experiments tbody").replaceChildren(...sorted.map(run => {
      const row = element("tr");
      row.append(...COLUMNS.map(column => column[3](run)));
      return row;
    }));
    if (focused !== undefined) head.cells[focused].querySelector("button").focus();
    const counts = Map.groupBy ? [...Map.groupBy(runs, run => run.status)].map(([name, of]) => `${of.length} ${name}`) : [];
    $("counts").textContent = counts.join(", ");
  }

  function show(data) {
    shown = data;
    data.best = data.runs.find(run => run.number === data.best_number) ?? null;
    showBudget(data.budget);
    showBest(data.best);
    showQueue(data.runs);
    showFinal(data.final_submission, data.edition);
    showTable(data.runs);
    plots.isoFlop($("iso-plot"), data.profiles, data.edition);
    plots.lossCurves($("curves-plot"), curvesOf(data), data.edition, data.edition === "2025"
      ? "The 2025 edition tells final losses only." : "Validation losses appear here.");
    for (const button of $("editions").children) {
      button.setAttribute("aria-pressed", String(button.dataset.edition === data.edition));
    }
  }

  /* ---- session ---- */
  function live(text, trouble = false) {
    $("live").textContent = text;
    $("live").classList.toggle("trouble", trouble);
  }

  function open(isOpen, refusal = "") {
    $("sign-in").hidden = isOpen;
    $("session").hidden = $("board").hidden = !isOpen;
    $("refusal").textContent = refusal;
    if (!isOpen) $("key").focus();
  }

  function leave(refusal = "") {
    clearTimeout(timer);
    generation += 1;
    sessionStorage.removeItem(KEY);
    open(false, refusal);
  }

  async function refresh() {
    clearTimeout(timer);
    const mine = ++generation;
    const edition = storedEdition();
    try {
      const address = base + "/data" + (edition ? "?edition=" + encodeURIComponent(edition) : "");
      const answer = await fetch(address, {headers: {"X-API-Key": storedKey()}, cache: "no-store"});
      if (mine !== generation) return;
      if (answer.status === 401 || answer.status === 403) return leave("The server does not know this key.");
      if (!answer.ok) throw new Error("status " + answer.status);
      const data = await answer.json();
      if (mine !== generation) return;
      open(true);
      show(data);
      live("updated " + new Date().toLocaleTimeString());
    } catch (error) {
      if (mine !== generation) return;
      if (!shown) open(false, "The server does not answer: " + error.message);
      live("no answer from the server; trying again", true);
    }
    timer = setTimeout(tick, pollMs);
  }
  const tick = () => { if (document.hidden) timer = setTimeout(tick, pollMs); else if (storedKey()) refresh(); };

  $("sign-in").addEventListener("submit", event => {
    event.preventDefault();
    sessionStorage.setItem(KEY, $("key").value.trim());
    $("key").value = "";
    refresh();
  });
  $("leave").addEventListener("click", () => leave());
  for (const button of $("editions").children) {
    button.addEventListener("click", () => { sessionStorage.setItem(EDITION, button.dataset.edition); refresh(); });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (shown) show(shown); });
  if (storedKey()) refresh(); else open(false);
})();
