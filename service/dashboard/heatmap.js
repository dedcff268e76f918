// Layers x module classes coloured by bits. A grid for the keyboard: arrows move, Enter tells more; experts unfold.

import { arrange } from "./cells.js";
import { bitsOf, colour, ink } from "./color.js";
import { h, put } from "./dom.js";
import { bytes, count, number, plural } from "./format.js";
import { Unfolded } from "./unfolded.js";

const MIN_CELL = 13, MAX_CELL = 64;
// Formats that the legend names one by one; more are told by their bits.
const MOST_NAMED = 12;

// A plan's own units as HeatMap.show wants them; names: the formats in the order that choices count in.
export function picture(units, names = [...new Set(units.map((unit) => unit.format))]) {
  const at = new Map(names.map((name, j) => [name, j]));
  return { names, choice: Uint16Array.from(units, (unit) => at.get(unit.format)), bytes: (i) => units[i].bytes, loss: (i) => units[i].loss, stderr: (i) => units[i].stderr };
}

// Bits of a weight by the name of a format.
const BITS = { of: bitsOf, colour, ink, text: (bits) => String(Math.round(bits * 10) / 10), label: "bits by module and layer", unit: "bits", legend: "bits a weight" };

// units: [{name, module, layer, expert, elements}]; onpick(index of unit). scale: what the names of a plan's choices mean as
// numbers, colours and words, where it is not bits.
export class HeatMap {
  constructor(units, { onpick, scale = BITS } = {}) {
    this.units = units;
    this.onpick = onpick;
    this.scale = scale;
    this.elements = Float64Array.from(units, (unit) => unit.elements || 1);
    this.layout = arrange(units);
    this.entries = new Map(); // by table cell
    this.unfolded = new Unfolded(units, (i) => this.onpick?.(i), scale);
    this.element = h("div", {});
    this.#draw();
  }

  #draw() {
    const { rows, columns, corner } = this.layout;
    const longest = Math.max(...rows.map((row) => row.name.length), corner.length);
    const room = Math.max(320, Math.min(1166, (document.getElementById("main")?.clientWidth ?? 1000) - 80)) - Math.min(240, 24 + 7 * longest);
    const size = Math.max(MIN_CELL, Math.min(MAX_CELL, Math.floor(room / columns.length) - 2));
    const every = Math.max(1, Math.ceil(26 / (size + 2)));
    this.wordy = size >= 20;
    const head = h("tr", {}, h("th", { scope: "col", class: "axis" }, corner), columns.map((words, x) => h("th", { scope: "col", "aria-label": words || `column ${x + 1}` }, /^\d+$/.test(words) && Number(words) % every ? "" : words)));
    const body = rows.map(({ name, cells }, y) => {
      const found = new Map(cells.map((cell) => [cell.x, cell]));
      return h("tr", {}, h("th", { scope: "row", title: name }, name), columns.map((_, x) => {
        const cell = found.get(x);
        if (!cell) return h("td", { class: "none" });
        const element = h("td", { tabindex: this.entries.size ? "-1" : "0", role: "gridcell" });
        this.entries.set(element, { ...cell, element, y });
        return element;
      }));
    });
    this.order = [...this.entries.values()];
    this.grid = h("table", { role: "grid", "aria-label": this.scale.label, vars: { "--cell": `${size}px` } }, h("thead", {}, head), h("tbody", {}, body));
    this.legend = h("div", { class: "legend" });
    this.tip = h("div", { class: "tip", role: "tooltip", hidden: true });
    put(this.element, h("div", { class: "heat" }, this.grid), this.legend, this.unfolded.element, this.tip);
    this.#listen();
  }

  #listen() {
    const of = (event) => this.entries.get(event.target.closest?.("td"));
    this.grid.addEventListener("mouseover", (event) => this.#tell(of(event)));
    this.grid.addEventListener("mouseleave", () => this.#tell(null));
    this.grid.addEventListener("focusin", (event) => this.#tell(of(event)));
    this.grid.addEventListener("focusout", () => this.#tell(null));
    this.grid.addEventListener("click", (event) => this.#pick(of(event)));
    this.grid.addEventListener("keydown", (event) => {
      const here = of(event);
      if (!here) return;
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.#pick(here); return; }
      if (event.key === "Escape") { this.#tell(null); return; }
      const next = this.#next(here, event.key);
      if (!next) return;
      event.preventDefault();
      here.element.tabIndex = -1;
      next.element.tabIndex = 0;
      next.element.focus();
    });
  }

  #next(here, key) {
    const row = this.order.filter((cell) => cell.y === here.y);
    const nearest = (list, far) => list.reduce((best, cell) => (!best || far(cell) < far(best) ? cell : best), null);
    if (key === "Home") return row[0];
    if (key === "End") return row[row.length - 1];
    if (key === "ArrowLeft" || key === "ArrowRight") return row[row.indexOf(here) + (key === "ArrowLeft" ? -1 : 1)];
    if (key !== "ArrowUp" && key !== "ArrowDown") return null;
    const step = key === "ArrowUp" ? -1 : 1;
    return nearest(this.order.filter((cell) => Math.sign(cell.y - here.y) === step), (cell) => 1e4 * Math.abs(cell.y - here.y) + Math.abs(cell.x - here.x));
  }

  // Colours for one plan {names, choice, bytes, loss, stderr}; called in each frame of a drag: only what changed is touched.
  show(plan) {
    this.plan = plan;
    const bits = Float64Array.from(plan.names, this.scale.of), used = new Uint32Array(plan.names.length);
    for (let i = 0; i < plan.choice.length; i++) used[plan.choice[i]] += 1;
    for (const entry of this.order) this.#paint(entry, plan, bits);
    this.#explain(plan.names, bits, used);
    this.unfolded.show(plan);
  }

  #paint(entry, { choice, names }, widths) {
    const { members } = entry, first = choice[members[0]];
    let weight = 0, sum = 0, mixed = false;
    for (let m = 0; m < members.length; m++) {
      const i = members[m], j = choice[i];
      sum += widths[j] * this.elements[i];
      weight += this.elements[i];
      if (j !== first) mixed = true;
    }
    const bits = sum / weight, format = mixed ? `${number(bits, 3)} ${this.scale.unit} on average` : names[first];
    if (bits === entry.bits && format === entry.format) return;
    Object.assign(entry, { bits, format });
    const { element } = entry, { scale } = this, words = mixed && scale === BITS ? bits.toFixed(1) : scale.text(bits);
    element.style.setProperty("--tone", scale.colour(bits));
    element.style.setProperty("--text", scale.ink(bits));
    element.textContent = this.wordy || words.length === 1 ? words : "";
    element.setAttribute("aria-label", `${entry.name}: ${format}${mixed ? "" : `, ${number(bits, 3)} ${scale.unit}`}`);
  }

  #explain(names, bits, used) {
    const told = [...used].join();
    if (told === this.told) return;
    this.told = told;
    const order = names.map((_, j) => j).filter((j) => used[j]).sort((a, b) => bits[a] - bits[b] || (names[a] < names[b] ? -1 : 1));
    if (order.length > MOST_NAMED) { this.#explainBits(order, bits, used); return; }
    put(this.legend, h("span", { class: "muted" }, `${this.scale.legend}:`), order.map((j) => h("span", {}, h("i", { vars: { "--tone": this.scale.colour(bits[j]) } }), `${this.scale.text(bits[j])} · ${names[j]} `, h("span", { class: "muted" }, `(${plural(used[j], "unit")})`))));
  }

  #explainBits(order, bits, used) {
    const about = new Map();
    for (const j of order) about.set(Math.round(bits[j]), (about.get(Math.round(bits[j])) ?? 0) + used[j]);
    put(this.legend, h("span", { class: "muted" }, `${this.scale.legend}, on average of a unit:`), [...about].map(([width, n]) => h("span", {}, h("i", { vars: { "--tone": this.scale.colour(width) } }), `about ${this.scale.text(width)} `, h("span", { class: "muted" }, `(${plural(n, "unit")})`))));
  }

  #tell(entry) {
    if (!entry || !this.plan) { this.tip.hidden = true; return; }
    const { members, element } = entry, { plan } = this;
    const rows = members.length === 1 ? one(this.units[members[0]], plan, members[0]) : many(members, plan);
    put(this.tip, h("b", {}, members.length === 1 ? this.units[members[0]].name : `${entry.name}: ${plural(members.length, "unit")}`), h("div", { class: "lines" }, rows.map(([name, value]) => [h("span", {}, name), h("span", {}, value)])));
    this.tip.hidden = false;
    const box = element.getBoundingClientRect(), tip = this.tip.getBoundingClientRect();
    const x = Math.max(8, Math.min(box.left, innerWidth - tip.width - 12));
    const y = box.bottom + 8 + tip.height > innerHeight ? box.top - tip.height - 8 : box.bottom + 8;
    this.tip.style.setProperty("--x", `${x}px`);
    this.tip.style.setProperty("--y", `${Math.max(8, y)}px`);
  }

  #pick(entry) {
    if (!entry) return;
    for (const { element } of this.order) element.classList.toggle("chosen", element === entry.element);
    if (entry.members.length > 1) { this.unfolded.open(entry, this.plan); return; }
    this.unfolded.close();
    this.onpick?.(entry.members[0]);
  }
}

const one = (unit, plan, i) => {
  const stderr = plan.stderr(i);
  return [["format", plan.names[plan.choice[i]]], ["bytes", bytes(plan.bytes(i))], ["weights", unit.elements ? count(unit.elements) : "–"], ["predicted loss", `${number(plan.loss(i))}${stderr ? ` ± ${number(stderr, 2)}` : ""}`]];
};

function many(members, plan) {
  const formats = new Map();
  for (const i of members) formats.set(plan.choice[i], (formats.get(plan.choice[i]) ?? 0) + 1);
  const sum = (of) => members.reduce((total, i) => total + of(i), 0);
  return [["bytes", bytes(sum(plan.bytes))], ["predicted loss", number(sum(plan.loss))], ...[...formats].sort((a, b) => a[0] - b[0]).map(([j, n]) => [plan.names[j], plural(n, "unit")])];
}
