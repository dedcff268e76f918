// What a model consists of, from its headers: what can be planned, and what stays as it is and why.

import { card, h, table } from "./dom.js";
import { bytes, count, percent } from "./format.js";
import { tile } from "./parts.js";

export function inventoryCards(found) {
  const rows = new Map();
  for (const unit of found.units) {
    const row = rows.get(unit.module) ?? { module: unit.module, units: 0, weights: 0, shape: unit.shape };
    row.units += 1;
    row.weights += unit.shape.reduce((a, b) => a * b, 1);
    rows.set(unit.module, row);
  }
  const cover = found.coverage;
  return [
    card("What can be planned", h("div", { class: "tiles" }, tile("units", count(found.units.length), found.architecture), tile("weights", count(found.weights)), tile("planned share", percent(cover.planned_share, 1), "of the stored bytes"), tile("stored", bytes(cover.stored_bytes))),
      table([{ title: "module", cell: (r) => r.module }, { title: "units", number: true, cell: (r) => count(r.units) }, { title: "shape", number: true, cell: (r) => r.shape.join(" × ") }, { title: "weights", number: true, cell: (r) => count(r.weights) }], [...rows.values()], { label: "modules" })),
    card("What stays as it is", table([{ title: "role", cell: (r) => r.role }, { title: "why", cell: (r) => r.reason }, { title: "tensors", number: true, cell: (r) => count(r.tensors) }, { title: "bytes", number: true, cell: (r) => bytes(r.bytes) }], cover.unquantized, { label: "unquantized" }),
      found.warnings.map((text) => h("p", { class: "note-line" }, text))),
  ];
}
