// Bytes by role as one bar with its words: which modules take the bytes, and what stays as it is.

import { colour } from "./color.js";
import { h } from "./dom.js";
import { bytes, number, percent } from "./format.js";

const MOST = 14;

// Follows a dragged budget: sums by role over flat arrays, words changed in place.
export class RoleBar {
  constructor(table) {
    this.data = table.flat;
    this.rest = table.coverage.unquantized_bytes;
    const names = [...new Set(table.units.map((unit) => unit.module ?? "units"))];
    const at = new Map(names.map((name, r) => [name, r]));
    this.role = Uint32Array.from(table.units, (unit) => at.get(unit.module ?? "units"));
    this.weights = new Float64Array(names.length);
    this.role.forEach((r, i) => { this.weights[r] += this.data.elements[i]; });
    const order = names.map((_, r) => r).sort((a, b) => this.weights[b] - this.weights[a]);
    this.named = new Set(order.slice(0, MOST));
    this.rows = names.map((name) => ({ part: h("i", { title: name }), swatch: h("span", { class: "swatch" }), value: h("span", { class: "number" }), name }));
    const rest = { part: h("i", { vars: { "--tone": "var(--soft)" } }), value: h("span", { class: "number" }, bytes(this.rest)) };
    this.last = rest.part;
    this.element = h("div", {}, h("div", { class: "stack", "aria-hidden": "true" }, order.map((r) => this.rows[r].part), rest.part),
      h("ul", { class: "roles" }, order.filter((r) => this.named.has(r)).map((r) => h("li", {}, this.rows[r].swatch, h("span", { class: "name", title: names[r] }, names[r]), this.rows[r].value)),
        order.length > MOST && h("li", { class: "muted" }, `and ${order.length - MOST} more`),
        h("li", {}, h("span", { class: "swatch", vars: { "--tone": "var(--soft)" } }), h("span", { class: "name" }, "stays as it is"), rest.value)));
  }

  show(choice) {
    const sums = new Float64Array(this.rows.length), { k, cost } = this.data;
    let total = this.rest;
    for (let i = 0; i < choice.length; i++) { const b = cost[i * k + choice[i]]; sums[this.role[i]] += b; total += b; }
    this.rows.forEach((row, r) => {
      if (row.bytes === sums[r] && row.total === total) return;
      Object.assign(row, { bytes: sums[r], total });
      const bits = (8 * sums[r]) / (this.weights[r] || 1), tone = colour(bits);
      row.part.style.setProperty("--share", `${((100 * sums[r]) / total).toFixed(3)}%`);
      row.part.style.setProperty("--tone", tone);
      row.swatch.style.setProperty("--tone", tone);
      row.value.textContent = `${number(bits)} bits · ${bytes(sums[r])} · ${percent(sums[r] / total, 1)}`;
    });
    this.last.style.setProperty("--share", `${((100 * this.rest) / total).toFixed(3)}%`);
  }
}
