// Axes of the frontier's picture, both logarithmic: a bit is worth as much at 2 as at 12.

import { s } from "./dom.js";
import { byteUnit, number, power } from "./format.js";

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

// place: {left, right, top, floor (of the curve), base (of the whole), height, width}.
export function xAxis({ least, most, x, place, weights }) {
  const [size, unit] = byteUnit(most), { left, right, top, base, height } = place, span = right - left;
  const below = logTicks(least / size, most / size, span / 70).map((v) => s("g", {}, s("line", { class: "grid", x1: x(v * size), x2: x(v * size), y1: top, y2: base }), s("text", { x: x(v * size), y: base + 18, "text-anchor": "middle" }, v)));
  const above = weights ? logTicks((8 * least) / weights, (8 * most) / weights, span / 60).map((v) => s("g", {}, s("line", { class: "axis", x1: x((v * weights) / 8), x2: x((v * weights) / 8), y1: top - 5, y2: top }), s("text", { x: x((v * weights) / 8), y: top - 10, "text-anchor": "middle" }, v))) : [];
  const middle = (left + right) / 2;
  return s("g", {}, below, above, s("line", { class: "axis", x1: left, x2: right, y1: base, y2: base }), weights && s("line", { class: "axis", x1: left, x2: right, y1: top, y2: top }),
    s("text", { x: middle, y: height - 5, "text-anchor": "middle", class: "label" }, `bytes of the planned units (${unit})`), weights && s("text", { x: middle, y: 14, "text-anchor": "middle", class: "label" }, "bits per weight of the planned units"));
}

export function yAxis({ low, high, y, place, lossUnit }) {
  const { left, right, top, floor } = place, stride = Math.max(1, Math.ceil((high - low) / 7)), decades = [];
  for (let e = Math.ceil(low); e <= Math.floor(high); e += stride) decades.push([e, power(e)]);
  const marks = decades.length >= 2 ? decades : logTicks(10 ** low, 10 ** high, 6).map((v) => [Math.log10(v), number(v)]);
  return s("g", {}, marks.map(([e, text]) => s("g", {}, s("line", { class: "grid", x1: left, x2: right, y1: y(10 ** e), y2: y(10 ** e) }), s("text", { x: left - 8, y: y(10 ** e) + 4, "text-anchor": "end" }, text))),
    s("line", { class: "axis", x1: left, x2: left, y1: top, y2: floor }),
    title(place, lossUnit));
}

// Beside the axis; on a narrow picture, where the label that follows the budget would cover it, below the curve.
function title({ left, top, floor }, lossUnit) {
  if (left >= 60) return s("text", { class: "label", transform: `translate(13 ${(top + floor) / 2}) rotate(-90)`, "text-anchor": "middle" }, `predicted loss (${lossUnit})`);
  return s("g", {}, s("text", { class: "label", x: left + 8, y: floor - 24 }, "predicted loss"), s("text", { class: "label", x: left + 8, y: floor - 9 }, `(${lossUnit})`));
}
