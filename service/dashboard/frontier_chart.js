// The frontier as a picture with a budget to drag. Both axes are logarithmic: a bit is worth as much at 2 as at 12.

import { h, s } from "./dom.js";
import { byteUnit, number, power } from "./format.js";

const LEFT = 64, RIGHT = 20, TOP = 52, BOTTOM = 46;
// Losses below this share of the largest are not drawn: a curve that falls to nothing would stretch the axis.
const DECADES = 7;

// points [[bytes, loss]], uniform [{name, bytes, loss}], knee {bytes, loss}, weights: for bits per weight on the upper axis.
// onbudget(bytes) is called while the budget is dragged. Returns {element, move(bytes, loss), share(bytes), from(share)}.
export function frontierChart({ points, uniform, knee, weights, lossUnit, width = 900, height = width < 600 ? 340 : 430, onbudget }) {
  const drawn = [...points, ...uniform.map((u) => [u.bytes, u.loss])].filter(([, loss]) => loss > 0);
  const least = points[0][0], most = Math.max(points[points.length - 1][0], ...drawn.map(([b]) => b), least + 1);
  const losses = drawn.map(([, loss]) => loss), roof = Math.max(...losses, 1e-300), high = Math.log10(roof);
  const low = Math.max(Math.log10(Math.min(...losses, roof)), high - DECADES), pad = Math.max(0.05, (high - low) * 0.04), top = high + 2.5 * pad; // room for a name above the first point
  const span = Math.log(most / least);
  const share = (b) => Math.log(Math.min(most, Math.max(least, b)) / least) / span;
  const from = (part) => Math.round(least * Math.exp(Math.min(1, Math.max(0, part)) * span));
  const x = (b) => LEFT + share(b) * (width - LEFT - RIGHT);
  const y = (loss) => Math.min(height - BOTTOM, Math.max(TOP, TOP + ((top - Math.log10(Math.max(loss, 1e-300))) / (top - low + pad)) * (height - TOP - BOTTOM)));
  const line = s("line", { class: "here", y1: TOP, y2: height - BOTTOM });
  const dot = s("circle", { class: "dot", r: 6 });
  const grip = s("rect", { class: "grip", width: 16, height: 22, rx: 5, y: height - BOTTOM - 34 });
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "predicted loss against bytes of the planned units, both logarithmic" },
    xAxis(least, most, x, width, height, weights), yAxis(low - pad, top, y, width, height, lossUnit),
    s("polyline", { class: "curve", points: points.filter(([, loss]) => loss > 0).map(([b, loss]) => `${x(b).toFixed(1)},${y(loss).toFixed(1)}`).join(" ") }),
    labelled(uniform.filter((u) => u.loss > 0), x, y, width),
    line, dot,
    knee && s("path", { class: "knee", d: diamond(x(knee.bytes), y(knee.loss), 6) }, s("title", {}, "knee")),
    onbudget && grip);
  if (onbudget) drag(chart, width, (event) => onbudget(from(event)));
  return { element: chart, share, from, move(b, loss) {
    const px = x(b);
    line.setAttribute("x1", px);
    line.setAttribute("x2", px);
    grip.setAttribute("x", px - 8);
    dot.setAttribute("cx", px);
    dot.setAttribute("cy", y(loss));
  } };
}

// moved(share of the width between the axes) while a pointer is held down.
function drag(chart, width, moved) {
  let dragging = false;
  const at = (event) => {
    const box = chart.getBoundingClientRect();
    return (((event.clientX - box.left) / box.width) * width - LEFT) / (width - LEFT - RIGHT);
  };
  chart.addEventListener("pointerdown", (event) => { dragging = true; chart.setPointerCapture(event.pointerId); moved(at(event)); });
  chart.addEventListener("pointermove", (event) => dragging && moved(at(event)));
  for (const end of ["pointerup", "pointercancel"]) chart.addEventListener(end, () => { dragging = false; });
}

const diamond = (x, y, r) => `M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z`;

// Uniform plans with their names where there is room: right above, left above, right below, left below, or in the title.
function labelled(uniform, x, y, width) {
  const taken = uniform.map((u) => ({ left: x(u.bytes) - 5, right: x(u.bytes) + 5, top: y(u.loss) - 5, bottom: y(u.loss) + 5 }));
  const free = (box) => box.left > LEFT && box.right < width && box.top > TOP && taken.every((other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);
  return [...uniform].sort((a, b) => a.bytes - b.bytes).map((u) => {
    const px = x(u.bytes), py = y(u.loss), wide = 6.6 * u.name.length;
    const place = [[8, -7, "start"], [8, 14, "start"], [-8, -7, "end"], [-8, 14, "end"], [8, -20, "start"]].find(([dx, dy, anchor]) => {
      const left = anchor === "start" ? px + dx : px + dx - wide, box = { left, right: left + wide, top: py + dy - 10, bottom: py + dy + 2 };
      if (!free(box)) return false;
      taken.push(box);
      return true;
    });
    return s("g", {}, s("circle", { class: "uniform", cx: px, cy: py, r: 5 }, s("title", {}, u.name)), place && s("text", { class: "label", x: px + place[0], y: py + place[1], "text-anchor": place[2] }, u.name));
  });
}

// 1, 1.5, 2, 3, 5, 7 in each decade, thinned to about `wanted`.
export function logTicks(low, high, wanted) {
  for (const marks of [[1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9], [1, 1.5, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5], [1, 2, 5], [1, 3], [1]]) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)) - 1; e <= Math.log10(high); e++) for (const m of marks) found.push(Number((m * 10 ** e).toPrecision(6)));
    const inside = found.filter((v) => v >= low * (1 - 1e-9) && v <= high * (1 + 1e-9));
    if (inside.length <= wanted) return inside;
  }
  return [];
}

function xAxis(least, most, x, width, height, weights) {
  const [size, unit] = byteUnit(most), right = width - RIGHT, bottom = height - BOTTOM;
  const below = logTicks(least / size, most / size, width / 70).map((v) => s("g", {}, s("line", { class: "grid", x1: x(v * size), x2: x(v * size), y1: TOP, y2: bottom }), s("text", { x: x(v * size), y: bottom + 18, "text-anchor": "middle" }, v)));
  const above = weights ? logTicks((8 * least) / weights, (8 * most) / weights, width / 60).map((v) => s("g", {}, s("line", { class: "axis", x1: x((v * weights) / 8), x2: x((v * weights) / 8), y1: TOP - 5, y2: TOP }), s("text", { x: x((v * weights) / 8), y: TOP - 9, "text-anchor": "middle" }, v))) : [];
  return s("g", {}, below, above, s("line", { class: "axis", x1: LEFT, x2: right, y1: bottom, y2: bottom }), weights && s("line", { class: "axis", x1: LEFT, x2: right, y1: TOP, y2: TOP }),
    s("text", { x: (LEFT + right) / 2, y: height - 8, "text-anchor": "middle", class: "label" }, `bytes of the planned units (${unit})`), weights && s("text", { x: (LEFT + right) / 2, y: 15, "text-anchor": "middle", class: "label" }, "bits per weight of the planned units"));
}

function yAxis(low, high, y, width, height, lossUnit) {
  const stride = Math.max(1, Math.ceil((high - low) / 8)), decades = [];
  for (let e = Math.ceil(low); e <= Math.floor(high); e += stride) decades.push([e, power(e)]);
  const marks = decades.length >= 2 ? decades : logTicks(10 ** low, 10 ** high, 6).map((v) => [Math.log10(v), number(v)]);
  return s("g", {}, marks.map(([e, text]) => s("g", {}, s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(10 ** e), y2: y(10 ** e) }), s("text", { x: LEFT - 8, y: y(10 ** e) + 4, "text-anchor": "end" }, text))),
    s("line", { class: "axis", x1: LEFT, x2: LEFT, y1: TOP, y2: height - BOTTOM }),
    s("text", { class: "label", transform: `translate(14 ${(TOP + height - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, `predicted loss (${lossUnit})`));
}

const sign = { curve: () => s("line", { class: "curve", x1: 0, x2: 18, y1: 6, y2: 6 }), uniform: () => s("circle", { class: "uniform", cx: 9, cy: 6, r: 5 }), knee: () => s("path", { class: "knee", d: diamond(9, 6, 6) }), here: () => s("line", { class: "here", x1: 9, x2: 9, y1: 0, y2: 12 }) };
export const key = (entries) => h("div", { class: "key" }, entries.map(([kind, text]) => h("span", {}, s("svg", { class: "chart", viewBox: "0 0 18 12", "aria-hidden": "true" }, sign[kind]()), text)));
