// The frontier as a picture with a budget to drag: the best loss for every budget, what uniform plans lose against it, and
// below it the mix of formats of which the best plans consist. A cross of lines with its three values follows the budget.

import { colour } from "./color.js";
import { h, s } from "./dom.js";
import { bytes, number } from "./format.js";
import { xAxis, yAxis } from "./frontier_axes.js";

const TOP = 50, BELOW = 42, RIBBON = 46, GAP = 8;
// Losses below this share of the largest are not drawn: a curve that falls to nothing would stretch the axis.
const DECADES = 5;
// How far the plot stands from the edges, also for what is aligned with it.
export const margins = (width) => (width < 600 ? { left: 50, right: 10 } : { left: 84, right: 24 });

// points [[bytes, loss]], uniform [{name, bytes, loss}], knee {bytes, loss}, weights: for bits per weight on the upper axis;
// mix(budgets): shares of the weights by format at each, formats [{name, bits}] in that order.
// onbudget(bytes) is called while the budget is dragged. Returns {element, move(bytes, loss, rival), share(bytes), from(share)}.
export function frontierChart({ points, uniform, knee, mix, formats, weights, lossUnit, width = 900, height = width < 600 ? 380 : 372, onbudget }) {
  const drawn = [...points, ...uniform.map((u) => [u.bytes, u.loss])].filter(([, loss]) => loss > 0);
  const least = points[0][0], most = Math.max(points[points.length - 1][0], ...drawn.map(([b]) => b), least + 1);
  const losses = drawn.map(([, loss]) => loss), roof = Math.max(...losses, 1e-300), high = Math.log10(roof);
  const low = Math.max(Math.log10(Math.min(...losses, roof)), high - DECADES), pad = Math.max(0.05, (high - low) * 0.04), top = high + 2.5 * pad; // room for a name above the first point
  const span = Math.log(most / least), base = height - BELOW, floor = base - RIBBON - GAP, edge = margins(width);
  const place = { left: edge.left, right: width - edge.right, top: TOP, floor, base, height, width };
  const share = (b) => Math.log(Math.min(most, Math.max(least, b)) / least) / span;
  const from = (part) => Math.round(least * Math.exp(Math.min(1, Math.max(0, part)) * span));
  const x = (b) => place.left + share(b) * (place.right - place.left);
  const y = (loss) => Math.min(floor, Math.max(TOP, TOP + ((top - Math.log10(Math.max(loss, 1e-300))) / (top - low + pad)) * (floor - TOP)));
  const seen = points.findIndex(([, loss]) => !(loss >= 10 ** low)), within = seen < 0 ? points : points.slice(0, seen + 1); // where it leaves the picture
  const line = within.map(([b, loss]) => `${x(b).toFixed(1)},${y(loss).toFixed(1)}`), marked = uniform.filter((u) => u.loss >= 10 ** low * (1 - 1e-9));
  const stairs = staircase(marked, x, y, place);
  const names = labelled(marked, x, y, place, floor), cross = new Cross(place, names);
  const chart = s("svg", { class: "chart frontier", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "predicted loss against bytes of the planned units, both logarithmic; below it the share of each format" },
    fade(), xAxis({ least, most, x, place, weights }), yAxis({ low: low - pad, high: top, y, place, lossUnit }),
    ribbon(mix, formats, from, place),
    s("polygon", { class: "under", points: [...line, `${line[line.length - 1].split(",")[0]},${floor}`, `${place.left},${floor}`].join(" ") }),
    stairs && s("polygon", { class: "waste", points: [...stairs, ...(within === points ? [] : [`${place.right},${floor}`, `${line[line.length - 1].split(",")[0]},${floor}`]), ...line.slice().reverse().filter((p) => Number(p.split(",")[0]) >= Number(stairs[0].split(",")[0]))].join(" ") }),
    stairs && s("polyline", { class: "stairs", points: stairs.join(" ") }),
    s("polyline", { class: "curve", points: line.join(" ") }),
    names.map((name) => name.element),
    knee && s("path", { class: "knee", d: diamond(x(knee.bytes), y(knee.loss), 6.5) }, s("title", {}, "knee")),
    cross.element);
  if (onbudget) drag(chart, width, place, (part) => onbudget(from(part)));
  return { element: chart, share, from, move: (b, loss, rival) => cross.move(x(b), y(loss), { above: weights ? number((8 * b) / weights) : "", below: bytes(b), loss: number(loss) }, rival && { y: y(rival.loss), text: `${number(rival.loss / loss, 2)}×` }) };
}

const fade = () => s("defs", {}, s("linearGradient", { id: "fade", x1: 0, y1: 0, x2: 0, y2: 1 }, s("stop", { class: "strong", offset: 0 }), s("stop", { class: "weak", offset: 1 })));

// The lines through the budget with a label on each axis; and how far the best uniform plan of the same budget lies above.
// names [{element, text, box}]: those in the ratio's way are left out while it stands there.
class Cross {
  constructor(place, names) {
    this.place = place;
    this.names = names.filter((name) => name.text);
    this.down = s("line", { class: "here", y1: place.top, y2: place.base });
    this.across = s("line", { class: "here", x1: place.left });
    this.gap = s("line", { class: "gap" });
    this.ratio = s("text", { class: "ratio" });
    this.halo = s("circle", { class: "halo", r: 13 });
    this.dot = s("circle", { class: "dot", r: 7 });
    this.labels = { above: pill(), below: pill(), loss: pill() };
    this.element = s("g", {}, this.down, this.across, this.gap, this.ratio, Object.values(this.labels).map((label) => label.element), this.halo, this.dot);
  }

  move(x, y, words, rival) {
    const { left, right, top, base, floor, width } = this.place;
    set(this.down, { x1: x, x2: x });
    set(this.across, { x2: x, y1: y, y2: y });
    for (const circle of [this.dot, this.halo]) set(circle, { cx: x, cy: y });
    this.labels.above.put(words.above, x, top - 14, left, right);
    this.labels.below.put(words.below, x, base + 14, left, right);
    this.labels.loss.put(words.loss, left - 4, y, 0, width, "end");
    const shown = rival && y - rival.y > 12 && y <= floor;
    this.gap.style.display = this.ratio.style.display = shown ? "" : "none";
    for (const name of this.names) name.text.style.display = "";
    if (!shown) return;
    set(this.gap, { x1: x, x2: x, y1: y - 9, y2: rival.y });
    const leftwards = x + 60 > right;
    set(this.ratio, { x: x + (leftwards ? -8 : 8), y: (y + rival.y) / 2 + 4, "text-anchor": leftwards ? "end" : "start" });
    this.ratio.textContent = rival.text;
    const wide = 10 * rival.text.length + 4, begin = leftwards ? x - 8 - wide : x + 8, middle = (y + rival.y) / 2;
    const here = { left: begin, right: begin + wide, top: middle - 14, bottom: middle + 10 };
    for (const name of this.names) if (meets(name.box, here)) name.text.style.display = "none";
  }
}

const meets = (one, other) => one.right >= other.left && one.left <= other.right && one.bottom >= other.top && one.top <= other.bottom;

const set = (element, values) => { for (const [name, value] of Object.entries(values)) element.setAttribute(name, value); };

function pill() {
  const box = s("rect", { height: 20, rx: 5 }), text = s("text", { "text-anchor": "middle" }), element = s("g", { class: "pill" }, box, text);
  return { element, put(words, x, y, least, most, anchor) {
    const wide = 12 + 6.9 * words.length, at = anchor === "end" ? x - wide / 2 : Math.min(most - wide / 2, Math.max(least + wide / 2, x));
    element.style.display = words ? "" : "none";
    set(box, { x: Math.max(0, at - wide / 2), y: y - 10, width: wide });
    set(text, { x: Math.max(wide / 2, at), y: y + 4.5 });
    text.textContent = words;
  } };
}

// part(share of the width between the axes) while a pointer is held down.
function drag(chart, width, place, moved) {
  let dragging = false;
  const at = (event) => {
    const box = chart.getBoundingClientRect();
    return (((event.clientX - box.left) / box.width) * width - place.left) / (place.right - place.left);
  };
  chart.addEventListener("pointerdown", (event) => { dragging = true; chart.setPointerCapture(event.pointerId); moved(at(event)); });
  chart.addEventListener("pointermove", (event) => dragging && moved(at(event)));
  for (const end of ["pointerup", "pointercancel"]) chart.addEventListener(end, () => { dragging = false; });
}

const diamond = (x, y, r) => `M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z`;

// The best uniform plan that fits each budget, as corners "x,y"; null without one.
function staircase(uniform, x, y, place) {
  const corners = [];
  let best = Infinity;
  for (const u of [...uniform].sort((a, b) => a.bytes - b.bytes)) {
    if (u.loss >= best) continue;
    if (best < Infinity) corners.push(`${x(u.bytes).toFixed(1)},${y(best).toFixed(1)}`);
    corners.push(`${x(u.bytes).toFixed(1)},${y(u.loss).toFixed(1)}`);
    best = u.loss;
  }
  return corners.length ? [...corners, `${place.right},${y(best).toFixed(1)}`] : null;
}

// Shares of the weights by format over all budgets, narrow formats below.
function ribbon(mix, formats, from, { left, right, floor, base }) {
  const columns = Math.max(40, Math.round((right - left) / 4)), at = Array.from({ length: columns + 1 }, (_, i) => i / columns);
  const rows = mix(at.map(from)), order = formats.map((_, j) => j).filter((j) => rows.some((row) => row[j] > 0)).sort((a, b) => formats[a].bits - formats[b].bits);
  const under = new Float64Array(at.length), roof = floor + GAP, px = (i) => (left + at[i] * (right - left)).toFixed(1), py = (v) => (base - v * (base - roof)).toFixed(1);
  return s("g", { class: "ribbon" }, order.map((j) => {
    const lower = at.map((_, i) => `${px(i)},${py(under[i])}`).reverse();
    rows.forEach((row, i) => { under[i] += row[j]; });
    return s("polygon", { fill: colour(formats[j].bits), points: [...at.map((_, i) => `${px(i)},${py(under[i])}`), ...lower].join(" ") }, s("title", {}, formats[j].name));
  }), (left < 60 ? ["mix"] : ["mix of", "formats"]).map((words, i, all) => s("text", { x: left - 8, y: (roof + base) / 2 + (all.length > 1 ? 14 * i - 3 : 4), "text-anchor": "end" }, words)));
}

// Uniform plans with their names where there is room: right above, left above, right below, left below, or in the title.
function labelled(uniform, x, y, { left, width, top }, floor) {
  const taken = uniform.map((u) => ({ left: x(u.bytes) - 5, right: x(u.bytes) + 5, top: y(u.loss) - 5, bottom: y(u.loss) + 5 }));
  const free = (box) => box.left > left && box.right < width && box.top > top && box.bottom < floor && taken.every((other) => !meets(box, other));
  return [...uniform].sort((a, b) => a.bytes - b.bytes).map((u) => {
    const px = x(u.bytes), py = y(u.loss), wide = 6.8 * u.name.length;
    let box = null;
    const place = [[8, -8, "start"], [8, 15, "start"], [-8, -8, "end"], [-8, 15, "end"], [8, -21, "start"]].find(([dx, dy, anchor]) => {
      const begin = anchor === "start" ? px + dx : px + dx - wide;
      box = { left: begin, right: begin + wide, top: py + dy - 10, bottom: py + dy + 2 };
      if (!free(box)) return false;
      taken.push(box);
      return true;
    });
    const text = place && s("text", { class: "label", x: px + place[0], y: py + place[1], "text-anchor": place[2] }, u.name);
    return { element: s("g", {}, s("circle", { class: "uniform", cx: px, cy: py, r: 5 }, s("title", {}, u.name)), text), text, box };
  });
}

const sign = { curve: () => s("line", { class: "curve", x1: 0, x2: 18, y1: 6, y2: 6 }), uniform: () => [s("line", { class: "stairs", x1: 0, x2: 18, y1: 6, y2: 6 }), s("circle", { class: "uniform", cx: 9, cy: 6, r: 4.5 })], knee: () => s("path", { class: "knee", d: diamond(9, 6, 6) }) };
export const key = (entries) => h("div", { class: "key" }, entries.map(([kind, text]) => h("span", {}, s("svg", { class: "chart", viewBox: "0 0 18 12", "aria-hidden": "true" }, sign[kind]()), text)));
