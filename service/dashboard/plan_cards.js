// Cards of a plan: bytes by role, exports, the table of its units.

import { bitsOf, colour } from "./color.js";
import { card, download, h, put, table } from "./dom.js";
import { bytes, count, number, percent, plural } from "./format.js";
import { code, problem } from "./parts.js";

function grouped(units, name) {
  const found = new Map();
  for (const unit of units) {
    const row = found.get(name(unit)) ?? { name: name(unit), units: 0, bytes: 0, elements: 0, loss: 0 };
    row.units += 1;
    row.bytes += unit.bytes;
    row.elements += unit.elements;
    row.loss += unit.loss;
    found.set(row.name, row);
  }
  return [...found.values()].sort((a, b) => b.bytes - a.bytes);
}

export function rolesCard(plan) {
  const rows = grouped(plan.units, (unit) => unit.module ?? "unit").map((row) => ({ ...row, bits: (8 * row.bytes) / row.elements }));
  const rest = plan.totals.unquantized_bytes, total = plan.totals.bytes + rest;
  const share = (n) => `${((100 * n) / total).toFixed(3)}%`;
  return card("Bytes by role",
    h("div", { class: "stack", role: "img", "aria-label": "share of the bytes by role" }, rows.map((row) => h("i", { title: `${row.name}: ${bytes(row.bytes)}`, vars: { "--share": share(row.bytes), "--tone": colour(row.bits) } })), h("i", { title: `unquantized: ${bytes(rest)}`, vars: { "--share": share(rest), "--tone": "var(--soft)" } })),
    table([
      { title: "role", cell: (r) => [h("span", { class: "swatch", vars: { "--tone": r.bits ? colour(r.bits) : "var(--soft)" } }), r.name] },
      { title: "bits/weight", number: true, cell: (r) => (r.bits ? number(r.bits) : "–") }, { title: "bytes", number: true, cell: (r) => bytes(r.bytes) }, { title: "share", number: true, cell: (r) => percent(r.bytes / total, 1) }, { title: "loss", number: true, cell: (r) => (r.bits ? number(r.loss) : "–") },
    ], [...rows, { name: "stays as it is", bytes: rest }], { label: "bytes by role" }));
}

export function exportsCard({ targets, exported }) {
  const shown = h("div", { "aria-live": "polite" });
  const run = async (target) => {
    put(shown, h("p", { class: "muted" }, "Exporting …"));
    try {
      const words = await exported(target.name);
      put(shown, code(words.length > 20000 ? `${words.slice(0, 20000)}\n…` : words, target.summary, words), h("p", { class: "note-line" }, h("button", { type: "button", onclick: () => download(target.file ?? `${target.name}.txt`, words) }, `Download ${target.file ?? ""}`)));
    } catch (error) { put(shown, problem(error)); }
  };
  return card("Export to an engine", h("div", { class: "row" }, targets.map((target) => h("button", { type: "button", title: target.summary, onclick: () => run(target) }, target.name))), h("div", { class: "note-line" }, shown));
}

const SHOWN = 200;

export function unitsCard(plan) {
  const holder = h("div", {}), found = h("span", { class: "muted small", role: "status" });
  const order = h("select", { "aria-label": "order of the units" }, [["", "in model order"], ["loss", "by predicted loss"], ["bytes", "by bytes"], ["bits", "by bits"]].map(([value, words]) => h("option", { value }, words)));
  const search = h("input", { type: "search", placeholder: "Find a unit", "aria-label": "Find a unit" });
  const draw = () => {
    const words = search.value.toLowerCase();
    let rows = plan.units.filter((unit) => unit.name.toLowerCase().includes(words) || unit.format.includes(words));
    if (order.value) rows = [...rows].sort((a, b) => (order.value === "bits" ? bitsOf(a.format) - bitsOf(b.format) : b[order.value] - a[order.value]));
    found.textContent = rows.length > SHOWN ? `${SHOWN} of ${count(rows.length)} shown` : plural(rows.length, "unit");
    put(holder, table([
      { title: "unit", cell: (u) => h("span", { class: "mono" }, u.name) }, { title: "shape", number: true, cell: (u) => u.shape?.join(" × ") ?? count(u.elements) },
      { title: "format", cell: (u) => [h("span", { class: "swatch", vars: { "--tone": colour(bitsOf(u.format)) } }), u.format] }, { title: "bytes", number: true, cell: (u) => count(u.bytes) }, { title: "predicted loss", number: true, cell: (u) => number(u.loss) },
    ], rows.slice(0, SHOWN), { label: "units" }));
  };
  order.addEventListener("change", draw);
  search.addEventListener("input", draw);
  draw();
  return h("div", { class: "units" }, card("Units", h("div", { class: "filters" }, search, order, found), holder));
}
