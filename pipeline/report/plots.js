// Plots: drawn into the width that there is, again whenever it changes.
const redrawing = new ResizeObserver((entries) => {
  for (const entry of entries) entry.target.redraw(entry.contentRect.width);
});
function plot(label, paint) {
  const box = make("div", { class: "plot" });
  let last = 0;
  box.redraw = (width) => {
    const whole = Math.floor(width);
    if (whole < 50 || whole === last) return;
    last = whole;
    const { height, marks } = paint(whole);
    box.replaceChildren(draw("svg", { viewBox: `0 0 ${whole} ${height}`, height, role: "img", "aria-label": label }, marks));
  };
  redrawing.observe(box);
  return box;
}

const line = (x1, y1, x2, y2, attributes) => draw("line", { x1, y1, x2, y2, ...attributes });
const label = (x, y, text, attributes) => draw("text", { x, y, ...attributes }, text);
const tip = (text) => draw("title", {}, text);

// About `count` round numbers inside [low, high].
function ticks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) out.push(i * step);
  return out;
}
function logTicks(low, high) {
  const out = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power) out.push(10 ** power);
  const every = Math.ceil(out.length / 6);
  return out.filter((tick, i) => i % every === 0 && tick >= low * 0.999 && tick <= high * 1.001);
}
// A text's width in pixels, near enough for margins.
const textWidth = (text) => 6.6 * text.length;
const cut = (text, most) => text.length > most ? text.slice(0, Math.max(1, most - 1)) + "\u2026" : text;

// Retention with error bars. rows: [{name, value, low, high, tone}]
function forestPlot(rows) {
  return plot("Retention of each task with 95 % intervals", (width) => {
    const left = Math.min(width * 0.42, Math.max(...rows.map((row) => textWidth(row.name))) + 12);
    const right = 104, step = 30, top = 8, height = top + rows.length * step + 34;
    const inner = [left + 6, width - right];
    const lows = rows.map((row) => row.low ?? row.value), highs = rows.map((row) => row.high ?? row.value);
    let low = Math.max(0, Math.min(0.95, ...lows)), high = Math.min(2, Math.max(1.05, ...highs));
    const pad = 0.04 * (high - low);
    low -= pad; high += pad;
    const x = (value) => inner[0] + (inner[1] - inner[0]) * (Math.min(high, Math.max(low, value)) - low) / (high - low);
    const bottom = top + rows.length * step;
    const marks = ticks(low, high, Math.max(2, Math.floor((inner[1] - inner[0]) / 48))).flatMap((tick) => [
      line(x(tick), top, x(tick), bottom, { class: "grid" }), label(x(tick), bottom + 16, percent(tick, 0), { "text-anchor": "middle" })]);
    marks.push(line(x(1), top, x(1), bottom, { class: "guide" }), label((inner[0] + inner[1]) / 2, bottom + 31, "share of the base's score", { "text-anchor": "middle" }));
    rows.forEach((row, i) => {
      const y = top + (i + 0.5) * step;
      const color = row.tone === "loss" ? "var(--loss)" : "var(--model)";
      const range = isNumber(row.low) ? ` (${percent(row.low)} to ${percent(row.high)})` : "";
      const group = draw("g", { class: "estimate" }, tip(`${row.name}: ${percent(row.value)}${range}`));
      if (isNumber(row.low)) {
        group.append(line(x(row.low), y, x(row.high), y, { stroke: color, "stroke-width": 2 }));
        for (const end of [row.low, row.high]) if (end >= low && end <= high) group.append(line(x(end), y - 4, x(end), y + 4, { stroke: color, "stroke-width": 2 }));
      }
      group.append(row.tone === "loss" ? draw("rect", { x: x(row.value) - 4.5, y: y - 4.5, width: 9, height: 9, fill: color })
                                       : draw("circle", { cx: x(row.value), cy: y, r: 4.5, fill: color }));
      marks.push(group, label(left - 4, y + 4, cut(row.name, Math.floor(left / 6.6)), { "text-anchor": "end", class: "name" }));
      const half = isNumber(row.low) ? ` ±${fixed(50 * (row.high - row.low), 1)}` : "";
      marks.push(label(width, y + 4, fixed(100 * row.value, 1) + half + " %", { "text-anchor": "end", class: "name" }));
    });
    return { height, marks };
  });
}

// points: [{letter, x, y, low, high, kind: "base" | "this" | "other", name}]
function scatterPlot(points, yTitle, yText) {
  return plot("Size against quality", (width) => {
    const top = 14, bottom = 44, right = 24, height = Math.max(240, Math.min(340, width * 0.6));
    const xs = points.map((p) => p.x / 1e6);
    const ys = points.flatMap((p) => [p.low ?? p.y, p.high ?? p.y, p.y]);
    const range = (values, least) => {
      let low = Math.min(...values), high = Math.max(...values);
      const pad = 0.08 * (high - low) || Math.abs(high) * 0.1 || 1;
      return [Math.max(least, low - pad), high + pad];
    };
    const [x0, x1] = range(xs, 0), [y0, y1] = range(ys, Math.min(...ys) >= 0 ? 0 : -Infinity);
    const yTicks = ticks(y0, y1, 5);
    const left = Math.max(...yTicks.map((tick) => textWidth(yText(tick)))) + 14;
    const x = (value) => left + (width - left - right) * (value - x0) / (x1 - x0);
    const y = (value) => height - bottom - (height - bottom - top) * (value - y0) / (y1 - y0);
    const marks = [];
    for (const tick of yTicks) marks.push(line(left, y(tick), width - right, y(tick), { class: "grid" }), label(left - 8, y(tick) + 4, yText(tick), { "text-anchor": "end" }));
    for (const tick of ticks(x0, x1, Math.max(2, Math.floor(width / 90)))) marks.push(label(x(tick), height - bottom + 18, number(tick), { "text-anchor": "middle" }));
    marks.push(line(left, height - bottom, width - right, height - bottom, { class: "axis" }));
    marks.push(label((left + width - right) / 2, height - 6, "weights on disk, MB", { "text-anchor": "middle" }), label(0, 10, yTitle, {}));
    for (const p of points) {
      const at = [x(p.x / 1e6), y(p.y)];
      const color = p.kind === "this" ? "var(--model)" : "var(--base)";
      const group = draw("g", { class: "point" }, tip(`${p.name}: ${bytes(p.x)}, ${yText(p.y)}`));
      if (isNumber(p.low)) group.append(line(at[0], y(p.low), at[0], y(p.high), { stroke: color, "stroke-width": 2 }));
      group.append(p.kind === "base"
        ? draw("rect", { x: at[0] - 5, y: at[1] - 5, width: 10, height: 10, fill: color, transform: `rotate(45 ${at[0]} ${at[1]})` })
        : draw("circle", { cx: at[0], cy: at[1], r: p.kind === "this" ? 6 : 5, fill: p.kind === "this" ? color : "var(--surface)", stroke: color, "stroke-width": 2 }));
      const beside = at[0] < width - right - 30;
      group.append(label(at[0] + (beside ? 10 : -10), at[1] - 6, p.letter, { class: "name", "text-anchor": beside ? "start" : "end" }));
      marks.push(group);
    }
    return { height, marks };
  });
}

// Bars to the right. rows: [{name, value, low, high}]
function barPlot(title, rows, axis) {
  return plot(title, (width) => {
    const left = Math.min(width * 0.45, Math.max(...rows.map((row) => textWidth(row.name))) + 12);
    const right = 76, step = 22, top = 4, bottom = top + rows.length * step, height = bottom + 34;
    const high = Math.max(...rows.map((row) => row.high ?? row.value), 0) || 1;
    const x = (value) => left + (width - left - right) * Math.max(0, value) / high;
    const marks = ticks(0, high, Math.max(2, Math.floor((width - left - right) / 90))).flatMap((tick) => [
      line(x(tick), top, x(tick), bottom, { class: "grid" }), label(x(tick), bottom + 15, number(tick, 2), { "text-anchor": "middle" })]);
    marks.push(label((left + width - right) / 2, bottom + 30, axis, { "text-anchor": "middle" }));
    rows.forEach((row, i) => {
      const y = top + i * step;
      const group = draw("g", { class: "bar-row" }, tip(`${row.name}: ${number(row.value)}`));
      group.append(draw("rect", { x: left, y: y + 4, width: Math.max(1, x(row.value) - left), height: step - 8, rx: 2, fill: "var(--model)" }));
      if (isNumber(row.low)) group.append(line(x(row.low), y + step / 2, x(row.high), y + step / 2, { stroke: "var(--text)", "stroke-width": 1.5 }));
      marks.push(group, label(left - 6, y + step / 2 + 4, cut(row.name, Math.floor(left / 6.6)), { "text-anchor": "end", class: "name" }));
      marks.push(label(width, y + step / 2 + 4, number(row.value, 3), { "text-anchor": "end" }));
    });
    return { height, marks };
  });
}
