// Measured quality with its intervals, and the losses of one unit over its menu.

import { s } from "./dom.js";
import { byteUnit, number, power } from "./format.js";
import { colour } from "./color.js";

export function ticks(low, high, wanted = 6) {
  const span = high - low || 1, raw = span / wanted, base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * base).find((v) => v >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(Number(v.toPrecision(12)));
  return found;
}

// rows [{name, value, low, high, tone, hollow}] on one linear axis from 0.
export function intervals(rows, unit, width = 620) {
  const left = 200, right = 74, row = 34, top = 8;
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

// The menu of one unit: points [{name, bytes, loss, bits, chosen, on}] (on: on the lower hull), and the curve of equal
// loss + price * bytes through the chosen point: what lies below it would be better at this price. Losses logarithmic.
export function menuChart(points, price, lossUnit, width = 560, height = 300) {
  const left = 78, right = 70, top = 14, bottom = 46, base = height - bottom;
  const drawn = points.filter((p) => Number.isFinite(p.loss) && p.loss > 0), chosen = points.find((p) => p.chosen);
  if (drawn.length < 2) return s("svg", { class: "chart", viewBox: `0 0 ${width} 40`, role: "img", "aria-label": "too few losses to draw" }, s("text", { x: 0, y: 24 }, "Too few losses above zero to draw."));
  const most = Math.max(...points.map((p) => p.bytes)) * 1.04, high = Math.log10(Math.max(...drawn.map((p) => p.loss))) + 0.15, low = Math.max(high - 8, Math.log10(Math.min(...drawn.map((p) => p.loss))) - 0.15);
  const x = (b) => left + (b / most) * (width - left - right), y = (loss) => Math.min(base, Math.max(top, top + ((high - Math.log10(Math.max(loss, 1e-300))) / (high - low)) * (base - top)));
  const [size, unit] = byteUnit(most), total = chosen.loss + price * chosen.bytes;
  const equal = Array.from({ length: 160 }, (_, i) => (i / 159) * most).map((b) => [b, total - price * b]).filter(([, loss]) => loss > 10 ** low && loss < 10 ** high);
  const powers = Array.from({ length: Math.floor(high) - Math.ceil(low) + 1 }, (_, i) => Math.ceil(low) + i).filter((e, i, all) => i % Math.ceil(all.length / 6) === 0);
  let last = Infinity;
  const named = [...drawn].sort((a, b) => b.bytes - a.bytes).filter((p) => { const fine = p.chosen || last - x(p.bytes) > 24; if (fine) last = x(p.bytes); return fine; });
  return s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `loss of each format against its bytes: ${drawn.map((p) => `${p.name} ${number(p.loss)}`).join("; ")}` },
    ticks(0, most / size, 6).map((v) => s("g", {}, s("line", { class: "grid", x1: x(v * size), x2: x(v * size), y1: top, y2: base }), s("text", { x: x(v * size), y: base + 16, "text-anchor": "middle" }, v))),
    powers.map((e) => s("g", {}, s("line", { class: "grid", x1: left, x2: width - right, y1: y(10 ** e), y2: y(10 ** e) }), s("text", { x: left - 8, y: y(10 ** e) + 4, "text-anchor": "end" }, power(e)))),
    s("polyline", { class: "curve", points: drawn.filter((p) => p.on).sort((a, b) => a.bytes - b.bytes).map((p) => `${x(p.bytes)},${y(p.loss)}`).join(" ") }),
    price > 0 && s("polyline", { class: "here open", points: equal.map(([b, loss]) => `${x(b).toFixed(1)},${y(loss).toFixed(1)}`).join(" ") }),
    drawn.map((p) => s("circle", { class: p.chosen ? "dot" : "point", cx: x(p.bytes), cy: y(p.loss), r: p.chosen ? 7 : 5, fill: p.chosen ? undefined : colour(p.bits) }, s("title", {}, `${p.name}: ${number(p.loss)}`))),
    named.map((p) => s("text", { class: "label", x: x(p.bytes) + (p.chosen ? -11 : 9), y: y(p.loss) + (p.chosen ? 17 : 1), "text-anchor": p.chosen ? "end" : "start" }, p.name)),
    s("text", { class: "label", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, `bytes (${unit})`),
    s("text", { class: "label", transform: `translate(13 ${(top + base) / 2}) rotate(-90)`, "text-anchor": "middle" }, lossUnit));
}
