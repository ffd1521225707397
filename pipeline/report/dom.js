// Elements and texts. Every text of a model or a data set goes through text nodes, never through markup.
const svgSpace = "http://www.w3.org/2000/svg";

function fillElement(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}
const make = (tag, attributes, ...children) => fillElement(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => fillElement(document.createElementNS(svgSpace, tag), attributes, children);

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const minus = (text) => text.replaceAll("-", "\u2212");

// Four significant digits, without the tail of zeros that binary fractions bring.
function number(value, digits = 4) {
  if (!isNumber(value)) return "";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return minus(Math.round(value).toLocaleString("en-US"));
  if (size < 1e-3) return minus(String(Number(value.toPrecision(Math.min(3, digits))).toExponential()));
  return minus(String(Number(value.toPrecision(digits))));
}
// The same with the zeros, for columns whose figures stand below each other.
function figure(value) {
  return isNumber(value) && Math.abs(value) >= 1e-3 && Math.abs(value) < 1000 ? minus(value.toPrecision(4)) : number(value, 3);
}
const fixed = (value, digits) => isNumber(value) ? minus(value.toFixed(digits)) : "";
const signed = (text) => text === "" || text.startsWith("\u2212") || Number(text) === 0 ? text : "+" + text;
const percent = (share, digits = 1) => isNumber(share) ? fixed(100 * share, digits) + " %" : "";
function bytes(count) {
  if (!isNumber(count) || count <= 0) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (count >= 1000 && step < units.length - 1) { count /= 1000; ++step; }
  return (step === 0 || count >= 100 ? count.toFixed(0) : count.toPrecision(3)) + " " + units[step];
}
const plural = (count, one, many = one + "s") => `${count.toLocaleString("en-US")} ${count === 1 ? one : many}`;

// A name that may be broken behind its underscores and commas.
const breakable = (name) => name.split(/(?<=[_,])/).flatMap((part, i) => i === 0 ? [part] : [document.createElement("wbr"), part]);

// A value in the metric's own unit: shares of documents are shown in percent.
const isShare = (metric) => metric.unit === "fraction" || metric.unit === "percent";
const toPercent = (metric, value) => metric.unit === "fraction" ? 100 * value : value;
const metricValue = (metric, value) => isShare(metric) && isNumber(value) ? fixed(toPercent(metric, value), 1) + " %" : figure(value);
const metricDifference = (metric, value) => isShare(metric) && isNumber(value) ? signed(fixed(toPercent(metric, value), 1)) : signed(number(value, 3));

// 95 % intervals: those that are given, else of the standard error.
function interval(value, error, low, high) {
  if (isNumber(low) && isNumber(high)) return [low, high];
  return isNumber(value) && isNumber(error) ? [value - 1.96 * error, value + 1.96 * error] : null;
}
const differenceInterval = (metric) => interval(metric.difference, metric.difference_stderr, metric.difference_low, metric.difference_high);
const retentionInterval = (metric) => interval(metric.retention, metric.retention_stderr, metric.retention_low, metric.retention_high);

// "loss", "gain" or "" where the interval holds 0 or there is none.
function direction(metric) {
  const range = differenceInterval(metric);
  if (!range || (range[0] <= 0 && range[1] >= 0)) return "";
  return (range[0] > 0) === (metric.higher_is_better !== false) ? "gain" : "loss";
}

// A table of rows of cells; the columns that hold names are aligned to the left.
function table(titles, rows, names = 1) {
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" },
    make("table", {}, make("thead", {}, make("tr", {}, titles.map((title, i) => make("th", { class: i < names ? "name" : "", scope: "col" }, title)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell, i) => make("td", { class: i < names ? "name" : "" }, cell)))))));
}
const asTable = (titles, rows, names = 1) => make("details", {}, make("summary", {}, "The figures as a table"), table(titles, rows, names));
const legend = (entries) => make("div", { class: "legend" },
  entries.map(([color, text]) => make("span", {}, make("i", { class: "swatch", style: `background:var(${color})` }), text)));
