// Plots over the layers of a model: errors, salience, sensitivity.

// A panel over linears: x is their order, with blocks marked below; y is logarithmic.
function layerPanel(title, places, values, yTitle, paintPlace) {
  return plot(title, (width) => {
    const top = 16, bottom = 40, left = 52, right = 8, height = 280;
    const usable = values.filter((value) => isNumber(value) && value > 0);
    if (usable.length === 0) return { height: 40, marks: [label(0, 20, "not measured", {})] };
    const low = Math.min(...usable) / 1.3, high = Math.max(...usable) * 1.3;
    const y = (value) => height - bottom - (height - bottom - top) * (Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low));
    const step = (width - left - right) / places.length;
    const x = (i) => left + (i + 0.5) * step;
    const inDecades = logTicks(low, high);
    const marks = (inDecades.length > 1 ? inDecades : ticks(low, high, 4).filter((tick) => tick > 0)).flatMap((tick) => [
      line(left, y(tick), width - right, y(tick), { class: "grid" }), label(left - 7, y(tick) + 4, number(tick, 2), { "text-anchor": "end" })]);
    marks.push(label(0, 9, yTitle, {}));
    const blocks = [];
    places.forEach((place, i) => {
      if (blocks.length === 0 || blocks.at(-1).block !== place.block) blocks.push({ block: place.block, from: i, to: i });
      blocks.at(-1).to = i;
    });
    const every = Math.ceil(blocks.length / Math.max(1, Math.floor((width - left) / 34)));
    blocks.forEach((block, i) => {
      if (i > 0) marks.push(line(x(block.from) - step / 2, top, x(block.from) - step / 2, height - bottom, { class: "grid" }));
      if (i % every === 0) marks.push(label((x(block.from) + x(block.to)) / 2, height - bottom + 16, block.block < 0 ? "other" : String(block.block), { "text-anchor": "middle" }));
    });
    marks.push(line(left, height - bottom, width - right, height - bottom, { class: "axis" }), label((left + width - right) / 2, height - 4, "block", { "text-anchor": "middle" }));
    places.forEach((place, i) => marks.push(paintPlace(place, x(i), y, Math.max(1, Math.min(9, step * 0.7)))));
    return { height, marks };
  });
}

const errorSeries = [["nearest", "--second", "rounding to nearest"], ["scaled", "--third", "with scales"], ["clipped", "--fourth", "and clipping"], ["stored", "--first", "as stored"]];

function errorFigure(layers) {
  const places = layers.linears;
  const series = errorSeries.filter(([key]) => places.some((place) => isNumber(place[key])));
  const values = places.flatMap((place) => series.map(([key]) => place[key]));
  const panel = layerPanel("Output error of each linear before and after", places, values, "squared error per token", (place, x, y, width) => {
    const there = series.filter(([key]) => place[key] > 0);
    const text = there.map(([key, , name]) => `${name} ${number(place[key])}`).join(", ");
    const group = draw("g", { class: "layer" }, tip(`${place.name}: ${text}`));
    if (there.length > 1) {
      const ys = there.map(([key]) => y(place[key]));
      group.append(line(x, Math.min(...ys), x, Math.max(...ys), { stroke: "var(--line)", "stroke-width": Math.max(1, width / 3) }));
    }
    for (const [key, color] of there) {
      const radius = Math.min(4, Math.max(1.5, width / 2));
      group.append(key === "nearest" ? draw("rect", { x: x - radius, y: y(place[key]) - radius, width: 2 * radius, height: 2 * radius, fill: `var(${color})` })
                                     : draw("circle", { cx: x, cy: y(place[key]), r: radius, fill: `var(${color})` }));
    }
    return group;
  });
  return make("figure", { class: "card", id: "layer-errors" },
    make("figcaption", {}, make("strong", {}, "Output error of each linear"), legend(series.map(([, color, name]) => [color, name]))), panel,
    asTable(["Linear", "Bits", ...series.map(([, , name]) => name), "Held back", "Left"],
      places.map((place) => [place.name, place.bits ?? "", ...series.map(([key]) => number(place[key])), number(place.held_back), percent(place.stored / place.nearest)])));
}

// The part of the rounding error that is left, blocks by projections.
function shareFigure(layers) {
  const names = [...new Set(layers.linears.map((place) => place.projection))];
  const blocks = [...new Set(layers.linears.map((place) => place.block))];
  const shares = new Map(layers.linears.filter((place) => place.nearest > 0 && isNumber(place.stored)).map((place) => [place.projection + "\u0000" + place.block, place]));
  const share = (place) => place.stored / place.nearest;
  const most = Math.max(...[...shares.values()].map(share), 1e-9);
  const panel = plot("Share of the rounding error that is left", (width) => {
    const left = Math.min(width * 0.35, Math.max(...names.map(textWidth)) + 10), top = 4, cell = (width - left - 4) / blocks.length, row = 26;
    const bottom = top + names.length * row;
    const marks = names.map((name, r) => label(left - 6, top + (r + 0.5) * row + 4, cut(name, Math.floor(left / 6.6)), { "text-anchor": "end", class: "name" }));
    const every = Math.ceil(26 / cell);
    blocks.forEach((block, c) => {
      if (c % every === 0) marks.push(label(left + (c + 0.5) * cell, bottom + 16, block < 0 ? "other" : String(block), { "text-anchor": "middle" }));
      names.forEach((name, r) => {
        const place = shares.get(name + "\u0000" + block);
        if (!place) return;
        const level = share(place) / most;
        const gap = cell > 6 ? 1 : 0;
        const group = draw("g", { class: "cell" }, tip(`${place.name}: ${percent(share(place))} left`),
          draw("rect", { x: left + c * cell, y: top + r * row, width: Math.max(1, cell - gap), height: row - 1, rx: cell > 12 ? 3 : 0,
                         style: `fill:color-mix(in srgb, var(--heat-high) ${Math.round(100 * level)}%, var(--heat-low))` }));
        if (cell > 40) group.append(label(left + (c + 0.5) * cell, top + (r + 0.5) * row + 4, fixed(100 * share(place), 1), { "text-anchor": "middle", style: level > 0.6 ? "fill:var(--surface)" : "fill:var(--text)" }));
        marks.push(group);
      });
    });
    marks.push(label(left + (width - left) / 2, bottom + 33, "block", { "text-anchor": "middle" }));
    return { height: bottom + 38, marks };
  });
  return make("figure", { class: "card", id: "layer-shares" }, make("figcaption", {}, make("strong", {}, "Share of the rounding error left, in percent"),
    make("span", { class: "muted" }, "the stronger, the more is left")), panel);
}

// Quantiles of mean |x| over the input channels of each linear.
function salienceFigure(layers) {
  const all = layers.linears.filter((place) => place.salience?.length === 7);
  const names = [...new Set(all.map((place) => place.projection))];
  const holder = make("div", {});
  const show = (projection) => {
    const places = projection === "" ? all : all.filter((place) => place.projection === projection);
    const values = places.flatMap((place) => [place.salience[0], place.salience[6]]);
    holder.replaceChildren(layerPanel("Salience of the input channels of each linear", places, values, "mean |x|", (place, x, y, width) => {
      const q = place.salience.map((value) => Math.max(value, 1e-12));
      const inside = (value) => y(Math.max(value, Math.min(...values.filter((v) => v > 0))));
      const boxWidth = Math.max(2, width);
      return draw("g", { class: "layer" }, tip(`${place.name}: median ${number(q[2], 3)}, 99 % ${number(q[5], 3)}, greatest ${number(q[6], 3)}`),
        line(x, inside(q[0]), x, inside(q[6]), { stroke: "var(--base)", "stroke-width": 1 }),
        draw("rect", { x: x - boxWidth / 2, y: inside(q[3]), width: boxWidth, height: Math.max(1, inside(q[1]) - inside(q[3])), fill: "var(--model)" }),
        line(x - boxWidth / 2, inside(q[2]), x + boxWidth / 2, inside(q[2]), { stroke: "var(--surface)", "stroke-width": 1.5 }),
        draw("circle", { cx: x, cy: inside(q[5]), r: Math.min(3.5, Math.max(1.5, width / 2.5)), fill: "var(--second)" }),
        draw("circle", { cx: x, cy: inside(q[6]), r: Math.min(3, Math.max(1.5, width / 3)), fill: "var(--surface)", stroke: "var(--second)" }));
    }));
  };
  show("");
  const choice = make("select", { onchange: (event) => show(event.target.value) }, make("option", { value: "" }, "all projections"), names.map((name) => make("option", { value: name }, name)));
  return make("figure", { class: "card", id: "salience" },
    make("figcaption", {}, make("strong", {}, "Salience: how large the inputs of each linear are, by channel"), make("label", {}, choice)),
    holder, legend([["--model", "25 to 75 % of the channels, stroke: median"], ["--second", "99 %; ring: the greatest"], ["--base", "line: least to greatest"]]),
    asTable(["Linear", "least", "25 %", "median", "75 %", "90 %", "99 %", "greatest"], all.map((place) => [place.name, ...place.salience.map((value) => number(value, 3))])));
}

// Parts of one kind are compared with each other: blocks, single linears, or one projection in all blocks.
const partKind = (part) => /layers\.\d+$/.test(part) ? "one block" : /layers\.\d+\./.test(part) ? "one linear" : "one projection in every block";

function sensitivityFigures(rows) {
  const figure = (kind, only) => {
    const chosen = rows.filter((row) => row.only === only && partKind(row.part) === kind);
    if (chosen.length === 0) return null;
    chosen.sort((a, b) => only ? b.value - a.value : a.value - b.value);
    const bars = chosen.slice(0, 40).map((row) => {
      const range = interval(row.value, row.stderr);
      return { name: row.part.replace(/^model\.layers\./, "block "), value: row.value, low: range?.[0], high: range?.[1] };
    });
    const title = only ? `Sensitivity: ${kind} quantized` : `What is left with ${kind} in full precision`;
    return make("figure", { class: "card sensitivity" }, make("figcaption", {}, make("strong", {}, title),
      chosen.length > bars.length ? make("span", { class: "muted" }, `${bars.length} of ${chosen.length}`) : null), barPlot(title, bars, "mean KL divergence from the base, nats"),
      asTable(["Part", "KL divergence, nats", "Standard error"], chosen.map((row) => [row.part, number(row.value), number(row.stderr)])));
  };
  return [...new Set(rows.map((row) => partKind(row.part)))].flatMap((kind) => [figure(kind, true), figure(kind, false)]).filter(Boolean);
}
