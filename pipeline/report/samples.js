// The sample browser: every document with both answers. Only one page of documents is ever in the page.
const pageLength = 10;
const outcomeNames = { lost: "Lost", gained: "Gained", changed: "Changed", same: "Same", wrong: "Wrong", right: "Right", none: "No score" };
const outcomeSigns = { lost: "▼ lost", gained: "▲ gained", changed: "≠ changed", same: "= same", wrong: "✗ wrong", right: "✓ right", none: "no score" };
const outcomeHelp = { lost: "the base was right, the quantized model is wrong", gained: "the base was wrong, the quantized model is right",
  changed: "another answer, as right or as wrong as before", same: "the same answer", wrong: "the quantized model is wrong", right: "the model is right", none: "" };
const isRight = (answer) => isNumber(answer.s) ? answer.s >= 0.5 : null;
const matchesOutcome = (sample, outcome) => outcome === "" || (outcome === "wrong" ? isRight(sample.m) === false : sample.o === outcome);

function searchText(sample) {
  if (sample.search === undefined) {
    const answers = [sample.m, sample.b ?? {}].flatMap((answer) => [answer.x ?? "", answer.e ?? ""]);
    Object.defineProperty(sample, "search", { value: [sample.q, sample.a, ...(sample.c ?? []), ...answers].join("\n").toLowerCase() });
  }
  return sample.search;
}

function sampleBrowser(model) {
  const tasks = model.evaluation.model.tasks;
  const samples = model.samples;
  const paired = samples.some((sample) => sample.b);
  const state = { task: "", outcome: "", query: "", only: null, page: 0 };
  const list = make("div", { id: "sample-list" });
  const status = make("span", { id: "sample-count", role: "status", "aria-live": "polite" });
  const chips = make("div", { class: "chips", role: "group", "aria-label": "Outcome" });
  const back = make("button", { type: "button", class: "plain", id: "previous-page", onclick: () => turn(-1) }, "Previous");
  const forth = make("button", { type: "button", class: "plain", id: "next-page", onclick: () => turn(1) }, "Next");
  const where = make("span", { id: "page-number" });

  const outcomes = ["", ...(paired ? ["lost", "gained", "changed", "same", "wrong"] : ["right", "wrong"])];
  const buttons = outcomes.map((outcome) => make("button", {
    type: "button", class: "chip", "data-outcome": outcome, title: outcomeHelp[outcome] ?? "", onclick: () => { state.outcome = outcome; state.only = null; changed(); } },
    outcomeNames[outcome] ?? "All", make("span", { class: "count" })));
  chips.append(...buttons);
  const withSamples = [...new Set(samples.map((sample) => sample.t))];
  const taskChoice = make("select", { id: "sample-task", onchange: (event) => { state.task = event.target.value; state.only = null; changed(); } },
    make("option", { value: "" }, "every task"), withSamples.map((t) => make("option", { value: t }, tasks[t].task)));
  let waiting = 0;
  const search = make("input", { type: "search", id: "sample-search", placeholder: "Search questions and answers", "aria-label": "Search questions and answers", oninput: (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.query = event.target.value.toLowerCase(); state.only = null; changed(); }, samples.length > 2000 ? 150 : 0);
  } });

  let found = [];
  function changed() {
    const inTask = samples.filter((sample) => (state.task === "" || sample.t === Number(state.task)) && (state.query === "" || searchText(sample).includes(state.query)));
    buttons.forEach((button, i) => {
      button.setAttribute("aria-pressed", String(outcomes[i] === state.outcome && !state.only));
      button.querySelector(".count").textContent = inTask.filter((sample) => matchesOutcome(sample, outcomes[i])).length.toLocaleString("en-US");
    });
    found = state.only ? [state.only] : inTask.filter((sample) => matchesOutcome(sample, state.outcome));
    state.page = 0;
    show();
  }
  function turn(step) {
    state.page += step;
    show();
    list.scrollIntoView({ block: "start" });
  }
  function show() {
    const pages = Math.max(1, Math.ceil(found.length / pageLength));
    state.page = Math.max(0, Math.min(pages - 1, state.page));
    const from = state.page * pageLength;
    const shown = found.slice(from, from + pageLength);
    status.textContent = plural(found.length, "document") + (found.length > shown.length ? `, ${from + 1} to ${from + shown.length} shown` : "");
    where.textContent = `page ${(state.page + 1).toLocaleString("en-US")} of ${pages.toLocaleString("en-US")}`;
    back.disabled = state.page === 0;
    forth.disabled = state.page === pages - 1;
    list.replaceChildren(...(shown.length > 0 ? shown.map((sample) => sampleCard(sample, tasks[sample.t], model.sample_metrics[sample.t], model)) : [make("p", { class: "muted" }, "No document is like that.")]));
  }
  changed();
  const section = make("div", {},
    make("div", { class: "controls" }, make("label", {}, "Task ", taskChoice), search), make("div", { class: "controls" }, chips),
    make("p", { class: "small muted" }, status), list, make("div", { class: "pager" }, where, make("div", {}, back, forth)));
  // Shows one document alone.
  section.open = (sample) => { state.only = sample; changed(); };
  return section;
}

function sampleCard(sample, task, metric, model) {
  const card = make("article", { class: `card sample ${sample.o}`, "data-outcome": sample.o });
  card.append(make("header", {}, make("span", { class: `badge ${sample.o}`, title: outcomeHelp[sample.o] }, outcomeSigns[sample.o]),
    make("span", {}, `${task.task} · document ${sample.n}`), metric ? make("span", {}, metric) : null));
  if (sample.q) card.append(make("div", { class: "prose question" }, sample.q));
  const base = sample.b ? { ...sample.b, x: sample.b.x ?? sample.m.x } : null;
  if (sample.c) card.append(choiceTable(sample, base));
  else if (sample.m.x !== undefined || base?.x !== undefined) card.append(answerPair(sample, base, model));
  else if (sample.m.p) card.append(scorePair(sample, base));
  if (sample.a && !sample.c) card.append(make("div", { class: "reference" }, make("span", { class: "muted" }, "Right answer: "), make("span", { class: "prose" }, sample.a)));
  return card;
}

function verdictOf(answer) {
  const right = isRight(answer);
  if (right === null) return null;
  const text = answer.s === 0 || answer.s === 1 ? "" : ` (${number(answer.s, 3)})`;
  return make("span", { class: `verdict-of badge ${right ? "right" : "wrong"}` }, (right ? "✓ right" : "✗ wrong") + text);
}

function answerPair(sample, base, model) {
  const [left, right] = base ? difference(base.x ?? "", sample.m.x ?? "") : [null, [[sample.m.x ?? "", false]]];
  const box = (name, kind, answer, words) => make("div", { class: `answer ${kind}` }, make("h4", {}, make("span", {}, name), verdictOf(answer)),
    make("div", { class: "prose" }, words.length > 0 ? markedText(words) : make("span", { class: "muted" }, "(nothing)")),
    answer.e !== undefined ? make("div", { class: "extracted" }, "extracted: ", make("strong", {}, answer.e)) : null);
  return make("div", { class: "pair" }, base ? box(`Base: ${model.base?.name ?? ""}`, "base", base, left) : null, box(base ? "Quantized" : model.name, "model", sample.m, right));
}

function choiceTable(sample, base) {
  const rows = sample.c.map((choice, i) => {
    const cell = (answer) => make("td", { class: answer.k === i ? "picked" : "" }, (answer.k === i ? "▸ " : "") + fixed(answer.p?.[i], 2));
    return make("tr", { class: i === sample.g ? "gold" : "" }, make("td", { class: "text" }, choice.trim()), base ? cell(base) : null, cell(sample.m));
  });
  return make("div", { class: "wide" }, make("table", { class: "choices" }, make("thead", {}, make("tr", {}, make("th", { class: "name" }, "Choice"),
    base ? make("th", {}, "Base, log-probability ", verdictOf(base)) : null, make("th", {}, base ? "Quantized " : "Log-probability ", verdictOf(sample.m)))), make("tbody", {}, rows)));
}

function scorePair(sample, base) {
  const cell = (answer) => make("td", {}, number(answer.p[0]), " ", verdictOf(answer));
  return make("div", { class: "wide" }, make("table", { class: "choices" }, make("tbody", {},
    base ? make("tr", {}, make("td", { class: "name" }, "Base, log-probability"), cell(base)) : null,
    make("tr", {}, make("td", { class: "name" }, base ? "Quantized" : "Log-probability"), cell(sample.m)))));
}
