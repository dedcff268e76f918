// The numbers of the plan at a dragged budget. Elements are made once; a drag changes their words.

import { h } from "./dom.js";
import { bytes, number, percent } from "./format.js";

const NAMES = ["bits per weight", "planned units", "predicted loss", "proved by its bound", "best uniform that fits", "0.1 bit more a weight"];

export class Readout {
  // onbits(bits): a number of bits per weight was typed.
  constructor(onbits) {
    this.exact = h("input", { type: "number", min: 0, step: "0.01", "aria-label": "bits per weight", onchange: () => Number(this.exact.value) > 0 && onbits(Number(this.exact.value)) });
    this.cells = NAMES.map((name, i) => {
      const value = h("div", { class: i === 1 ? "value bytes" : "value" }, i ? "" : this.exact), note = h("div", { class: "small muted" });
      return { value, note, element: h("div", {}, h("div", { class: "name" }, name), value, note) };
    });
    this.element = h("div", { class: "readout" }, this.cells.map((cell) => cell.element));
  }

  show(table, allocator, plan, budget, rival) {
    const rest = table.coverage.unquantized_bytes, next = allocator.uniformAbove(plan.bytes);
    const more = plan.bytes + table.weights / 80, better = allocator.bound(Math.min(more, allocator.most));
    if (document.activeElement !== this.exact) this.exact.value = ((8 * budget) / table.weights).toFixed(3);
    const times = (other) => (plan.loss > 0 ? `${number(other.loss / plan.loss)} × the loss` : "–");
    const set = [
      [null, `of ${number(table.weights / 1e6)} million weights`],
      [bytes(plan.bytes), `${bytes(plan.bytes + rest)} with the rest`],
      [number(plan.loss), table.loss_unit],
      [plan.gap <= 1e-12 * plan.loss ? "optimal" : `within ${plan.gap / plan.loss < 1e-5 ? "0.001 %" : percent(plan.gap / plan.loss, 3)}`, `none is below ${number(plan.bound)}`],
      rival ? [times(rival), `${rival.name}${next && next !== rival ? `; next: +${percent(next.bytes / plan.bytes - 1)}` : ""}`] : ["none", next ? `${next.name}: +${percent(next.bytes / plan.bytes - 1)} bytes` : "no uniform plan is so small"],
      plan.loss > 0 && plan.multiplier > 0 ? [`−${percent(Math.max(0, 1 - better / plan.loss), 1)} loss`, `${number(plan.multiplier * 2 ** 20)} of loss a MiB here`] : ["–", "nothing is left to gain"],
    ];
    set.forEach(([value, note], i) => {
      if (value !== null) this.cells[i].value.textContent = value;
      this.cells[i].note.textContent = note;
    });
  }
}
