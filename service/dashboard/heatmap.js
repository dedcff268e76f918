// Layers x module classes coloured by bits. A grid for the keyboard: arrows move, Enter tells more; experts unfold.

import { bitsOf, colour, ink } from "./color.js";
import { h, put } from "./dom.js";
import { bytes, number, plural } from "./format.js";

const MIN_CELL = 15, MAX_CELL = 46;

// units: [{name, module, layer, expert, elements}]; chosen(i) -> {format, bytes, loss, stderr}. onpick(index of unit).
export class HeatMap {
  constructor(units, { onpick } = {}) {
    this.units = units;
    this.onpick = onpick;
    this.unfolded = null;
    this.element = h("div", {});
    this.cells = [];
    const rows = new Map(), layers = new Map();
    units.forEach((unit, i) => {
      const module = unit.module ?? unit.name, layer = unit.layer ?? -1;
      if (!rows.has(module)) rows.set(module, new Map());
      const row = rows.get(module);
      if (!row.has(layer)) row.set(layer, []);
      row.get(layer).push(i);
      layers.set(layer, true);
    });
    this.modules = [...rows.entries()];
    this.layers = [...layers.keys()].sort((a, b) => (a < 0) - (b < 0) || a - b); // what lies outside the layers comes last
    this.experts = units.some((unit) => unit.expert !== null && unit.expert !== undefined);
    this.#draw();
  }

  #draw() {
    const room = Math.max(320, Math.min(1150, document.getElementById("main").clientWidth - 78)) - 140;
    const size = Math.max(MIN_CELL, Math.min(MAX_CELL, Math.floor(room / this.layers.length) - 2));
    this.wordy = size >= 20;
    const every = Math.max(1, Math.ceil(26 / (size + 2)));
    const inner = this.layers.filter((layer) => layer >= 0);
    const head = h("tr", {}, h("th", { scope: "col", class: "axis" }, inner.length ? "module ╲ layer" : "module"),
      this.layers.map((layer) => h("th", { scope: "col" }, layer < 0 ? "–" : layer % every === 0 ? layer : "")));
    this.cells = [];
    const body = this.modules.map(([module, row], y) => h("tr", {}, h("th", { scope: "row", title: module }, module),
      this.layers.map((layer, x) => {
        const members = row.get(layer);
        if (!members) return h("td", { class: "none" });
        const cell = h("td", { tabindex: this.cells.length ? "-1" : "0", role: "gridcell" });
        this.cells.push({ cell, members, x, y, module, layer });
        return cell;
      })));
    this.grid = h("table", { role: "grid", "aria-label": "bits by module and layer", vars: { "--cell": `${size}px` } }, h("thead", {}, head), h("tbody", {}, body));
    this.fold = h("div", {});
    this.legend = h("div", { class: "legend" });
    this.tip = h("div", { class: "tip", role: "tooltip", hidden: true });
    put(this.element, h("div", { class: "heat" }, this.grid), this.legend, this.fold, this.tip);
    this.#listen();
  }

  #listen() {
    const of = (event) => this.cells.find(({ cell }) => cell === event.target.closest?.("td"));
    this.grid.addEventListener("mouseover", (event) => this.#tell(of(event)));
    this.grid.addEventListener("mouseleave", () => this.#tell(null));
    this.grid.addEventListener("focusin", (event) => this.#tell(of(event)));
    this.grid.addEventListener("focusout", () => this.#tell(null));
    this.grid.addEventListener("click", (event) => this.#pick(of(event)));
    this.grid.addEventListener("keydown", (event) => {
      const here = of(event);
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (!here) return;
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.#pick(here); return; }
      if (event.key === "Escape") { this.#tell(null); return; }
      const next = event.key === "Home" ? this.cells.find((c) => c.y === here.y) : event.key === "End" ? this.cells.findLast((c) => c.y === here.y) : moves[event.key] && this.#step(here, moves[event.key]);
      if (!next) return;
      event.preventDefault();
      here.cell.tabIndex = -1;
      next.cell.tabIndex = 0;
      next.cell.focus();
    });
  }

  #step(here, [dx, dy]) {
    if (dx) return this.cells.filter((c) => c.y === here.y && Math.sign(c.x - here.x) === dx).sort((a, b) => Math.abs(a.x - here.x) - Math.abs(b.x - here.x))[0];
    return this.cells.filter((c) => Math.sign(c.y - here.y) === dy).sort((a, b) => Math.abs(a.y - here.y) - Math.abs(b.y - here.y) || Math.abs(a.x - here.x) - Math.abs(b.x - here.x))[0];
  }

  // Colours for one plan; called again for each budget while it is dragged, so only cells that change are touched.
  show(chosen) {
    this.chosen = chosen;
    const used = new Map();
    for (const entry of this.cells) this.#paint(entry, chosen, used);
    const order = [...used.entries()].sort((a, b) => bitsOf(a[0]) - bitsOf(b[0]) || (a[0] < b[0] ? -1 : 1));
    put(this.legend, h("span", { class: "muted" }, "bits a weight:"), order.map(([format, n]) => h("span", {}, h("i", { vars: { "--tone": colour(bitsOf(format)) } }), `${bitsOf(format)} · ${format} `, h("span", { class: "muted" }, `(${plural(n, "unit")})`))));
    if (this.unfolded) this.#unfold(this.unfolded);
  }

  #paint(entry, chosen, used) {
    let weight = 0, sum = 0, mixed = false, first = null;
    for (const i of entry.members) {
      const format = chosen(i).format, elements = this.units[i].elements || 1;
      used.set(format, (used.get(format) ?? 0) + 1);
      sum += bitsOf(format) * elements;
      weight += elements;
      if (first === null) first = format;
      else if (first !== format) mixed = true;
    }
    const bits = sum / weight;
    if (bits === entry.bits && mixed === entry.mixed) return;
    Object.assign(entry, { bits, mixed });
    const words = mixed ? bits.toFixed(1) : String(Math.round(bits * 10) / 10), { cell } = entry;
    cell.style.setProperty("--tone", colour(bits));
    cell.style.setProperty("--text", ink(bits));
    cell.textContent = this.wordy || words.length === 1 ? words : "";
    cell.setAttribute("aria-label", `${entry.module}, ${entry.layer < 0 ? "outside the layers" : `layer ${entry.layer}`}: ${number(bits, 3)} bits`);
  }

  #tell(entry) {
    if (!entry || !this.chosen) { this.tip.hidden = true; return; }
    const { members, cell } = entry;
    const rows = members.length === 1 ? one(this.units[members[0]], this.chosen(members[0])) : many(members.map((i) => this.chosen(i)));
    put(this.tip, h("b", {}, members.length === 1 ? this.units[members[0]].name : `${entry.module}, layer ${entry.layer}: ${plural(members.length, "unit")}`), h("div", { class: "lines" }, rows.map(([name, value]) => [h("span", {}, name), h("span", {}, value)])));
    this.tip.hidden = false;
    const box = cell.getBoundingClientRect(), tip = this.tip.getBoundingClientRect();
    const x = Math.max(8, Math.min(box.left, innerWidth - tip.width - 12));
    const y = box.bottom + 8 + tip.height > innerHeight ? box.top - tip.height - 8 : box.bottom + 8;
    this.tip.style.setProperty("--x", `${x}px`);
    this.tip.style.setProperty("--y", `${y}px`);
  }

  #pick(entry) {
    if (!entry) return;
    for (const { cell } of this.cells) cell.classList.toggle("chosen", cell === entry.cell);
    if (entry.members.length > 1) { this.unfolded = entry; this.#unfold(entry); return; }
    this.unfolded = null;
    put(this.fold);
    this.onpick?.(entry.members[0]);
  }

  // The experts of one layer and role, each with its own choice.
  #unfold({ members, module, layer }) {
    const cells = members.map((i) => {
      const picked = this.chosen(i), bits = bitsOf(picked.format);
      return h("button", { type: "button", class: "expert", title: `${this.units[i].name}: ${picked.format}`, vars: { "--tone": colour(bits), "--text": ink(bits) }, onclick: () => this.onpick?.(i) }, `${this.units[i].expert ?? i}`, h("b", {}, bits));
    });
    put(this.fold, h("h3", {}, `${module}, layer ${layer}: experts (number and bits)`), h("div", { class: "experts" }, cells));
  }
}

const one = (unit, picked) => [["format", picked.format], ["bytes", bytes(picked.bytes)], ["weights", unit.elements?.toLocaleString("en-GB")], ["predicted loss", `${number(picked.loss)}${picked.stderr ? ` ± ${number(picked.stderr, 2)}` : ""}`]];

function many(list) {
  const formats = new Map();
  for (const { format } of list) formats.set(format, (formats.get(format) ?? 0) + 1);
  return [["bytes", bytes(list.reduce((sum, c) => sum + c.bytes, 0))], ["predicted loss", number(list.reduce((sum, c) => sum + c.loss, 0))], ...[...formats].sort().map(([name, n]) => [name, plural(n, "unit")])];
}
