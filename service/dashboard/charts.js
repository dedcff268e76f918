// Pictures in SVG: the frontier with a budget to drag, and measured quality with its intervals.

import { h, s } from "./dom.js";
import { byteUnit, number, power } from "./format.js";

const LEFT = 64, RIGHT = 20, TOP = 52, BOTTOM = 46;

// points [[bytes, loss]], uniform [{name, bytes, loss}], knee {bytes, loss}, weights: for bits per weight on the upper axis.
// onbudget(bytes) is called while the budget is dragged. Returns {element, move(bytes, loss)}.
export function frontierChart({ points, uniform, knee, weights, lossUnit, width = 900, height = width < 600 ? 340 : 430, onbudget }) {
  const shown = [...points, ...uniform.map((u) => [u.bytes, u.loss])].filter(([, loss]) => loss > 0);
  const least = points[0][0], most = Math.max(...shown.map(([b]) => b));
  const floor = Math.min(...shown.map(([, loss]) => loss)), roof = Math.max(...shown.map(([, loss]) => loss));
  // A curve that falls to nothing would stretch the axis: nine decades are shown at most.
  const low = Math.max(Math.log10(floor), Math.log10(roof) - 9), high = Math.log10(roof);
  const pad = Math.max(0.05, (high - low) * 0.04);
  const x = (b) => LEFT + ((b - least) / (most - least || 1)) * (width - LEFT - RIGHT);
  const y = (loss) => TOP + ((high + pad - Math.log10(Math.max(loss, 1e-300))) / (high - low + 2 * pad)) * (height - TOP - BOTTOM);
  const inside = (loss) => Math.min(height - BOTTOM, Math.max(TOP, y(loss)));
  const line = s("line", { class: "here", y1: TOP, y2: height - BOTTOM });
  const dot = s("circle", { class: "dot", r: 6 });
  const grip = s("rect", { class: "grip", width: 16, height: 22, rx: 5, y: height - BOTTOM - 34 });
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "predicted loss against bytes, logarithmic" },
    xAxis(least, most, x, width, height, weights), yAxis(low - pad, high + pad, y, width, height, lossUnit),
    s("polyline", { class: "curve", points: points.filter(([, loss]) => loss > 0).map(([b, loss]) => `${x(b).toFixed(1)},${inside(loss).toFixed(1)}`).join(" ") }),
    labelled(uniform.filter((u) => u.loss > 0), x, inside, width),
    line, dot,
    knee && s("path", { class: "knee", d: diamond(x(knee.bytes), inside(knee.loss), 6) }, s("title", {}, "knee")),
    grip);
  const at = (event) => {
    const box = chart.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width) * width;
    return Math.round(least + Math.min(1, Math.max(0, (share - LEFT) / (width - LEFT - RIGHT))) * (most - least));
  };
  let dragging = false;
  chart.addEventListener("pointerdown", (event) => { dragging = true; chart.setPointerCapture(event.pointerId); onbudget(at(event)); });
  chart.addEventListener("pointermove", (event) => dragging && onbudget(at(event)));
  chart.addEventListener("pointerup", () => { dragging = false; });
  chart.addEventListener("pointercancel", () => { dragging = false; });
  return { element: chart, least, most, move(b, loss) {
    const px = x(Math.min(most, Math.max(least, b)));
    line.setAttribute("x1", px);
    line.setAttribute("x2", px);
    grip.setAttribute("x", px - 8);
    dot.setAttribute("cx", px);
    dot.setAttribute("cy", inside(loss));
  } };
}

const diamond = (x, y, r) => `M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z`;

// Names of uniform plans beside their points, moved apart where they would overlap.
function labelled(uniform, x, y, width) {
  let last = -Infinity;
  return [...uniform].sort((a, b) => b.loss - a.loss).map((u) => {
    const px = x(u.bytes), py = y(u.loss);
    const text = Math.max(py - 7, last + 13, TOP + 13);
    last = text;
    const left = px > width - 130;
    return s("g", {}, s("circle", { class: "uniform", cx: px, cy: py, r: 5 }, s("title", {}, u.name)), s("text", { class: "label", x: left ? px - 9 : px + 9, y: text, "text-anchor": left ? "end" : "start" }, u.name));
  });
}

export function ticks(low, high, wanted = 6) {
  const span = high - low || 1, raw = span / wanted, base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * base).find((v) => v >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(Number(v.toPrecision(12)));
  return found;
}

function xAxis(least, most, x, width, height, weights) {
  const [size, unit] = byteUnit(most);
  const below = ticks(least / size, most / size, width / 130).map((v) => s("g", {}, s("line", { class: "grid", x1: x(v * size), x2: x(v * size), y1: TOP, y2: height - BOTTOM }), s("text", { x: x(v * size), y: height - BOTTOM + 18, "text-anchor": "middle" }, v)));
  const above = weights ? ticks((8 * least) / weights, (8 * most) / weights, width / 110).map((v) => s("g", {}, s("line", { class: "axis", x1: x((v * weights) / 8), x2: x((v * weights) / 8), y1: TOP - 5, y2: TOP }), s("text", { x: x((v * weights) / 8), y: TOP - 9, "text-anchor": "middle" }, v))) : [];
  return s("g", {}, below, above, s("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM }), weights && s("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: TOP, y2: TOP }),
    s("text", { x: (LEFT + width - RIGHT) / 2, y: height - 8, "text-anchor": "middle", class: "label" }, `bytes of the planned units (${unit})`), weights && s("text", { x: (LEFT + width - RIGHT) / 2, y: 15, "text-anchor": "middle", class: "label" }, "bits per weight of the planned units"));
}

function yAxis(low, high, y, width, height, lossUnit) {
  const decades = [];
  const stride = Math.max(1, Math.ceil((high - low) / 8));
  for (let e = Math.ceil(low); e <= Math.floor(high); e += stride) decades.push([e, power(e)]);
  const marks = decades.length >= 2 ? decades : ticks(10 ** low, 10 ** high, 5).filter((v) => v > 0).map((v) => [Math.log10(v), number(v)]);
  return s("g", {}, marks.map(([e, text]) => s("g", {}, s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(10 ** e), y2: y(10 ** e) }), s("text", { x: LEFT - 8, y: y(10 ** e) + 4, "text-anchor": "end" }, text))),
    s("line", { class: "axis", x1: LEFT, x2: LEFT, y1: TOP, y2: height - BOTTOM }),
    s("text", { class: "label", transform: `translate(14 ${(TOP + height - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, `predicted loss (${lossUnit})`));
}

// rows [{name, value, low, high, tone, hollow}] on one linear axis from 0.
export function intervals(rows, unit, width = 620) {
  const left = 178, right = 74, row = 34, top = 8;
  const height = top + rows.length * row + 44;
  const most = Math.max(...rows.map((r) => r.high ?? r.value), 1e-12) * 1.06;
  const x = (v) => left + (Math.max(0, v) / most) * (width - left - right);
  const marks = rows.map((r, i) => {
    const y = top + row * (i + 0.5);
    return s("g", {}, s("text", { class: "label", x: left - 12, y: y + 4, "text-anchor": "end" }, r.name),
      r.high !== undefined && s("line", { class: "mark", x1: x(r.low), x2: x(r.high), y1: y, y2: y, stroke: r.tone }),
      r.high !== undefined && [r.low, r.high].map((v) => s("line", { class: "mark", x1: x(v), x2: x(v), y1: y - 6, y2: y + 6, stroke: r.tone })),
      s("circle", { cx: x(r.value), cy: y, r: 5.5, stroke: r.tone, class: r.hollow ? "hollow" : "", fill: r.hollow ? undefined : r.tone }),
      s("text", { class: "label", x: x(r.high ?? r.value) + 10, y: y + 4 }, number(r.value)));
  });
  const base = height - 36;
  return s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": rows.map((r) => `${r.name}: ${number(r.value)}`).join("; ") },
    ticks(0, most, 4).map((v) => s("g", {}, s("line", { class: "grid", x1: x(v), x2: x(v), y1: top, y2: base }), s("text", { x: x(v), y: base + 16, "text-anchor": "middle" }, number(v)))),
    s("line", { class: "axis", x1: left, x2: width - right, y1: base, y2: base }), marks,
    s("text", { class: "label", x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, unit));
}

const sign = { curve: () => s("line", { class: "curve", x1: 0, x2: 18, y1: 6, y2: 6 }), uniform: () => s("circle", { class: "uniform", cx: 9, cy: 6, r: 5 }), knee: () => s("path", { class: "knee", d: diamond(9, 6, 6) }), here: () => s("line", { class: "here", x1: 9, x2: 9, y1: 0, y2: 12 }) };
export const key = (entries) => h("div", { class: "key" }, entries.map(([kind, text]) => h("span", {}, s("svg", { class: "chart", viewBox: "0 0 18 12", "aria-hidden": "true" }, sign[kind]()), text)));
