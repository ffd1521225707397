// The page: one model at a time, section after section.
const report = JSON.parse(document.getElementById("data").textContent);
const pageBody = document.getElementById("page");

// ---- light and dark ----
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";
try { theme = localStorage.getItem("salient-theme") ?? "auto"; } catch { /* a page of a file may have no storage */ }
function applyTheme() {
  const dark = theme === "dark" || (theme === "auto" && prefersDark.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const button = document.getElementById("theme");
  button.textContent = { auto: "Auto", light: "Light", dark: "Dark" }[theme];
  button.setAttribute("aria-label", `Colours: ${theme}. Change`);
}
document.getElementById("theme").addEventListener("click", () => {
  const order = prefersDark.matches ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
  theme = order[(order.indexOf(theme) + 1) % 3];
  try { localStorage.setItem("salient-theme", theme); } catch { /* kept for this view only */ }
  applyTheme();
});
prefersDark.addEventListener("change", applyTheme);
addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; });
addEventListener("afterprint", applyTheme);
applyTheme();

// ---- sections ----
const metricName = (task, metric) => metric.metric === "acc" || task.metrics.length === 1 ? task.task : `${task.task} ${metric.metric}`;
const findMetric = (tasks, name) => tasks.flatMap((task) => task.metrics).find((metric) => metric.metric === name);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function tile(name, value, note) {
  return value === "" ? null : make("div", { class: "tile" }, make("div", { class: "label" }, name), make("div", { class: "value" }, value), make("div", { class: "note" }, note ?? ""));
}

function tiles(model) {
  const tasks = model.evaluation.model.tasks;
  const headlines = tasks.flatMap((task) => task.metrics).filter((metric) => metric.headline);
  const kept = headlines.filter((metric) => isNumber(metric.retention)).map((metric) => metric.retention);
  const count = (outcome) => model.samples.filter((sample) => sample.o === outcome).length;
  const divergence = findMetric(tasks, "kl_divergence"), agreement = findMetric(tasks, "top1_agreement");
  const speed = model.evaluation.model.throughput, baseSpeed = model.evaluation.base?.throughput;
  const out = [];
  if (kept.length > 0) out.push(tile("Kept of the base's scores", percent(mean(kept)), `mean of ${plural(kept.length, "task")}`));
  if (model.base && model.samples.length > 0) out.push(tile("Answers lost / gained", `${count("lost").toLocaleString("en-US")} / ${count("gained").toLocaleString("en-US")}`, `of ${plural(model.samples.length, "document")}`));
  if (divergence) out.push(tile("KL divergence", number(divergence.value, 3), "nats a token, mean"));
  if (agreement) out.push(tile("Same top token", metricValue(agreement, agreement.value), "of the positions"));
  out.push(tile("Weights", bytes(model.bytes), model.base?.bytes > 0 ? `${percent(model.bytes / model.base.bytes)} of ${bytes(model.base.bytes)}` : ""));
  if (speed) out.push(tile("Generation", `${number(speed.generation_tokens_per_second, 3)} tokens/s`, baseSpeed ? `base ${number(baseSpeed.generation_tokens_per_second, 3)}` : ""));
  return make("div", { class: "tiles" }, out);
}

// A flag names its example by the line in the data file.
function exampleButton(model, browser, flag) {
  const example = model.samples.find((sample) => sample.t === flag.t && sample.l === flag.document);
  return example ? make("button", { type: "button", class: "plain example", onclick: () => { browser.open(example); browser.scrollIntoView(); } }, "show an example") : null;
}

function summary(model, browser) {
  const evaluation = model.evaluation;
  const flags = evaluation.model.tasks.flatMap((task, t) => (task.flags ?? []).map((flag) => ({ ...flag, task: task.task, t })));
  return make("section", { id: "summary" }, make("h1", {}, model.name),
    make("p", { class: "lead" }, [model.base ? `compared with ${model.base.name}` : "evaluated alone", `evaluated ${model.evaluated.replace("T", " ").replace("Z", " UTC")}`].join(" · ")),
    make("div", { class: "card verdict" }, make("div", { id: "verdict" }, evaluation.verdict ?? ""),
      evaluation.verdict_lines?.length > 0 ? make("ul", {}, evaluation.verdict_lines.map((text) => make("li", {}, text))) : null),
    flags.length > 0 ? make("div", { class: "card flags" }, make("h3", {}, "Look at this first"), make("ul", {}, flags.map((flag) => make("li", {}, `${flag.task}: ${flag.text} `,
      exampleButton(model, browser, flag))))) : null,
    tiles(model));
}

function flipCounts(model, t, metric) {
  if (metric.flips) return metric.flips;
  if (metric.metric !== model.sample_metrics[t]) return null;
  const of = model.samples.filter((sample) => sample.t === t && sample.b);
  return of.length > 0 ? { lost: of.filter((sample) => sample.o === "lost").length, gained: of.filter((sample) => sample.o === "gained").length } : null;
}

function results(model) {
  const tasks = model.evaluation.model.tasks;
  const all = tasks.flatMap((task, t) => task.metrics.map((metric) => ({ task, t, metric })));
  const important = (row) => row.metric.headline || /^(perplexity|kl_divergence|top1_agreement|word_perplexity)$/.test(row.metric.metric) || (row.task.metrics.length === 1 && !row.metric.detail);
  const body = make("tbody", {});
  const show = (every) => {
    let last = -1;
    body.replaceChildren(...all.filter((row) => every || important(row)).map(({ task, t, metric }) => {
      const first = t !== last;
      last = t;
      const range = differenceInterval(metric), kept = retentionInterval(metric), tone = direction(metric), flips = flipCounts(model, t, metric);
      const of = (pair, text) => pair ? make("div", { class: "interval" }, `${text(pair[0])} to ${text(pair[1])}`) : null;
      const p = metric.p_value ?? metric.flips?.mcnemar_mid_p ?? metric.flips?.mcnemar_p;
      const comparison = model.base ? [
        make("td", {}, metricValue(metric, metric.base_value)), make("td", {}, metricValue(metric, metric.value)),
        make("td", { class: tone }, tone === "loss" ? "▼ " : tone === "gain" ? "▲ " : "", metricDifference(metric, metric.difference), of(range, (value) => metricDifference(metric, value))),
        make("td", {}, percent(metric.retention), of(kept, (value) => percent(value))),
        make("td", {}, flips ? `${flips.lost} / ${flips.gained}` : ""), make("td", {}, isNumber(p) ? number(p, 2) : "")]
        : [make("td", {}, metricValue(metric, metric.value), isNumber(metric.stderr) ? make("div", { class: "interval" }, "± " + metricValue(metric, metric.stderr)) : null)];
      return make("tr", { class: `${first ? "first" : ""} ${metric.headline ? "headline" : ""}` }, make("td", { class: "name" }, first ? breakable(task.task) : ""), make("td", { class: "name" }, breakable(metric.metric)), comparison,
        make("td", {}, (metric.n ?? 0).toLocaleString("en-US")));
    }));
  };
  const few = all.length <= 8 || all.every(important);
  show(few);
  const titles = ["Task", "Metric", ...(model.base ? ["Base", "Quantized", "Difference", "Kept", "Lost / gained", "p"] : ["Value"]), "n"];
  const explanation = "Differences of shares are in percentage points. Below a figure: its 95 % interval, over the same documents for both models. Marked ▼ or ▲ where the interval leaves out 0.";
  return make("section", { id: "results" }, make("h2", {}, "Results"), model.base ? make("p", { class: "lead" }, explanation) : null,
    few ? null : make("div", { class: "controls" }, make("label", {}, make("input", { type: "checkbox", id: "all-metrics", onchange: (event) => show(event.target.checked) }), `all ${all.length} metrics`)),
    make("div", { class: "card wide", tabindex: "0", role: "region", "aria-label": "Results" }, make("table", {},
      make("thead", {}, make("tr", {}, titles.map((title, i) => make("th", { scope: "col", class: i < 2 ? "name" : "" }, title)))), body)));
}

function retentionFigure(model) {
  const rows = model.evaluation.model.tasks.flatMap((task) => task.metrics.filter((metric) => isNumber(metric.retention) && (metric.headline || task.metrics.length === 1)).map((metric) => {
    const range = retentionInterval(metric);
    return { name: metricName(task, metric), value: metric.retention, low: range?.[0], high: range?.[1], tone: direction(metric) };
  }));
  if (rows.length === 0) return null;
  return make("figure", { class: "card", id: "retention" }, make("figcaption", {}, make("strong", {}, "What is kept of the base's scores"), make("span", { class: "muted" }, "95 % intervals")), forestPlot(rows));
}

function familyFigure(model) {
  const key = (figure) => `${figure.task} ${figure.metric}`;
  const counts = new Map();
  for (const member of model.family) {
    if (!(member.bytes > 0)) continue;
    for (const figure of member.figures) {
      const entry = counts.get(key(figure)) ?? { figure, members: 0 };
      entry.members += 1;
      counts.set(key(figure), entry);
    }
  }
  // The base diverges from itself by nothing, which no evaluation stores.
  const ofBase = (figure) => /^(kl_|js_)/.test(figure.metric) ? 0 : figure.metric === "top1_agreement" ? 1 : null;
  for (const entry of counts.values()) if (ofBase(entry.figure) !== null) entry.members += 1;
  const choices = [...counts.entries()].filter(([, entry]) => entry.members >= 2);
  if (choices.length === 0) return null;
  const rank = ([name, entry]) => /kl_divergence$/.test(name) ? 0 : entry.figure.headline ? 1 : / perplexity$/.test(name) ? 2 : 3;
  choices.sort((a, b) => rank(a) - rank(b));
  const holder = make("div", {}), list = make("ul", { class: "key" }), note = make("p", { class: "muted" });
  const show = (name) => {
    const unit = counts.get(name).figure;
    const others = model.family.filter((member) => member.other_settings?.includes(unit.task));
    note.textContent = others.length === 0 ? "" : `Not drawn, since they were given ${unit.task} with other data or settings: ${others.map((member) => member.name).join(", ")}.`;
    note.hidden = others.length === 0;
    const scale = (value) => unit.unit === "fraction" ? 100 * value : value;
    const yText = (value) => number(value, 3) + (isShare(unit) ? " %" : "");
    let letter = 0;
    const points = model.family.filter((member) => member.bytes > 0).flatMap((member) => {
      const figure = member.figures.find((one) => key(one) === name);
      const value = figure?.value ?? (member.is_base ? ofBase(unit) : null);
      if (!isNumber(value)) return [];
      const range = interval(value, figure?.stderr, figure?.value_low, figure?.value_high);
      return [{ letter: member.is_base ? "base" : String.fromCharCode(65 + letter++ % 26), x: member.bytes, y: scale(value), low: range ? scale(range[0]) : undefined, high: range ? scale(range[1]) : undefined,
                kind: member.is_base ? "base" : member.is_this ? "this" : "other", name: member.name }];
    });
    holder.replaceChildren(scatterPlot(points, `${name}, ${unit.higher_is_better === false ? "lower" : "higher"} is better`, yText));
    list.replaceChildren(...points.map((point) => make("li", {}, make("span", { class: "letter" }, point.letter), make("span", { class: "name" }, point.kind === "this" ? make("strong", {}, point.name) : point.name),
      make("span", { class: "figures num" }, `${bytes(point.x)} · ${yText(point.y)}`))));
  };
  show(choices[0][0]);
  return make("figure", { class: "card", id: "family" }, make("figcaption", {}, make("strong", {}, "Size against quality"),
    make("label", {}, make("select", { id: "family-metric", "aria-label": "Quality", onchange: (event) => show(event.target.value) }, choices.map(([name]) => make("option", { value: name }, name))))), holder, list, note);
}

function comparison(model) {
  const figures = [retentionFigure(model), familyFigure(model)].filter(Boolean);
  if (figures.length === 0) return null;
  return make("section", { id: "comparison" }, make("h2", {}, "Against the base"), make("div", { class: "plots" }, figures));
}

function layers(model) {
  const sensitivity = sensitivityFigures(model.sensitivity);
  const known = model.layers.linears;
  if (!known && sensitivity.length === 0) return null;
  const total = model.layers.total;
  const sentence = total?.rtn_error > 0 ? `${percent(total.left)} of the error of rounding to nearest is left, summed over ${plural(known.length, "linear")}, on ${plural(model.layers.calibration_tokens, "calibration token")}.` : "";
  const prediction = isNumber(model.layers.salience_prediction) ? ` Salience ranks the input channels by rounding error with a median correlation of ${number(model.layers.salience_prediction, 2)}.` : "";
  return make("section", { id: "layers" }, make("h2", {}, "Layers"), make("p", { class: "lead" }, sentence + prediction + (known ? "" : " " + (model.layers.note ?? ""))),
    make("div", { class: "plots" }, sensitivity, known ? [errorFigure(model.layers), shareFigure(model.layers)] : []),
    known?.some((place) => place.salience) ? make("div", { class: "plots" }, salienceFigure(model.layers)) : null);
}

function samplesSection(model, browser) {
  if (!browser) return null;
  const help = model.base ? "Every document with the base's answer and the quantized model's. A score of 0.5 or more counts as right. What differs between two texts is marked." : "Every document with the model's answer. A score of 0.5 or more counts as right.";
  return make("section", { id: "samples" }, make("h2", {}, "Samples"), make("p", { class: "lead" }, help), browser);
}

function details(model) {
  const facts = (pairs) => make("dl", { class: "facts" }, pairs.filter(([, value]) => value).map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  const evaluation = model.evaluation;
  const speed = [["Quantized", evaluation.model.throughput], ["Base", evaluation.base?.throughput]].filter(([, of]) => of);
  const costs = evaluation.runtime_costs ?? [];
  const costMetrics = [...new Set(costs.flatMap((cost) => cost.metrics.map((metric) => metric.metric)))];
  return make("section", { id: "details" }, make("h2", {}, "Details"),
    speed.length > 0 ? make("div", { class: "card" }, make("h3", {}, "Speed and memory"), table(["", "Prompt tokens/s", "Generation tokens/s", "Weights on disk", "In memory", "Process peak", "Threads"],
      speed.map(([name, of]) => [name, number(of.prompt_tokens_per_second, 3), number(of.generation_tokens_per_second, 3), bytes(of.weights_disk_bytes), bytes(of.weights_memory_bytes), bytes(of.peak_rss_bytes), of.threads]))) : null,
    costs.length > 0 ? make("div", { class: "card" }, make("h3", {}, "What 8 bits cost while it runs"), table(["Activations, KV cache", ...costMetrics],
      costs.map((cost) => [`a${cost.activation_bits} kv${cost.kv_bits}`, ...costMetrics.map((name) => number(cost.metrics.find((metric) => metric.metric === name)?.value))]))) : null,
    make("div", { class: "card" }, make("h3", {}, "Models"), facts([["Model", model.path], ["SHA-256", model.hash], ["Base", model.base?.path], ["SHA-256 of the base", model.base?.hash]]),
      make("details", {}, make("summary", {}, "How the models ran"), make("pre", {}, JSON.stringify({ model: evaluation.model.description, base: evaluation.base?.description }, null, 2)))),
    make("div", { class: "card" }, make("h3", {}, "Tasks"), evaluation.model.tasks.map((task) => make("details", {}, make("summary", {}, task.task),
      facts([["File", task.file], ["SHA-256", task.data_sha256], ["Seconds", isNumber(task.seconds) ? fixed(task.seconds, 1) : ""], ["Prompts cut on the left", task.truncated_prompts], ["Generations at the length limit", task.generations_at_length_limit]]),
      make("pre", {}, JSON.stringify({ settings: task.settings, calibration: task.calibration, generations: task.generations }, null, 2)), task.first_prompt ? [make("p", { class: "small muted" }, "The first prompt:"), make("pre", {}, task.first_prompt)] : null))));
}

function showModel(model) {
  const browser = model.samples.length > 0 ? sampleBrowser(model) : null;
  const sections = [summary(model, browser), results(model), comparison(model), layers(model), samplesSection(model, browser), details(model)].filter(Boolean);
  if (report.models.length > 1) {
    const choice = make("select", { id: "model-choice", onchange: (event) => showModel(report.models[Number(event.target.value)]) },
      report.models.map((one, i) => make("option", { value: i, selected: one === model }, one.name)));
    sections[0].prepend(make("div", { class: "controls" }, make("label", {}, "Model ", choice)));
  }
  pageBody.replaceChildren(...sections);
  document.getElementById("sections").replaceChildren(...sections.map((section) => make("a", { href: "#" + section.id }, section.querySelector("h2")?.textContent ?? "Summary")));
}

document.getElementById("footer").textContent = `Made by salient ${report.version}, ${report.created.replace("T", " ").replace("Z", " UTC")}, from ${report.store}.`;
showModel(report.models[0]);
