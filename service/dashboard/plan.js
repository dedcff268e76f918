// A plan as a picture, with its certificate in words and what was measured.

import { once, text } from "./api.js";
import { intervals } from "./charts.js";
import { bitsOf, colour } from "./color.js";
import { card, download, facts, h, put, table } from "./dom.js";
import { bytes, count, number, percent, plural, short } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { code, problem, tile } from "./parts.js";
import { whyPanel } from "./why.js";

export async function planView(root, { parts: [digest], query }) {
  const [plan, engines] = await Promise.all([once(`/v1/plans/${encodeURIComponent(digest)}`), once("/v1/engines")]);
  const why = h("div", {});
  const map = new HeatMap(plan.units, { onpick: (i) => pick(i) });
  const tableDigest = plan.provenance.table;
  put(root, head(plan, digest, tableDigest), tiles(plan), warnings(plan),
    card("Bits by layer and module", map.element, h("p", { class: "note-line" }, "Point at a cell, or walk with the arrow keys; Enter or a click says why it got its format.")),
    why,
    h("div", { class: "cards" }, certificate(plan), quality(plan), roles(plan), exports(plan, digest, engines.exporters)),
    units(plan), card("Where it comes from", facts(provenance(plan, digest))));
  map.show((i) => plan.units[i]);
  const named = plan.units.findIndex((unit) => unit.name === query.get("unit"));
  if (named >= 0) pick(named);

  async function pick(i) {
    put(why, h("p", { class: "muted" }, "Loading …"));
    try {
      const sensitivities = tableDigest && (await once(`/v1/sensitivities/${encodeURIComponent(tableDigest)}`));
      put(why, whyPanel(plan, sensitivities, i));
    } catch (error) { put(why, problem(error)); }
    why.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
}

function head(plan, digest, tableDigest) {
  return h("div", { class: "head" },
    h("div", {}, h("h1", {}, plan.model.ref), h("p", { class: "muted" }, [`plan ${short(digest)}`, plan.budget && `budget ${plan.budget}`, plan.engine && `for ${plan.engine}`, plan.model.architecture].filter(Boolean).join(" · "))),
    h("div", { class: "row" },
      tableDigest && h("a", { class: "button", href: `#/frontier/${tableDigest}?bytes=${plan.totals.bytes}` }, "Drag the budget"),
      h("a", { class: "button", href: `#/compare?a=${digest}` }, "Compare"),
      h("button", { type: "button", class: "primary", onclick: () => download("plan.json", JSON.stringify(plan), "application/json") }, "Download")));
}

function tiles({ totals, measured, units, provenance }) {
  const within = (stderr, unit) => [stderr ? `± ${number(1.96 * stderr, 2)} (95 %)` : "", unit].filter(Boolean).join(", ");
  return h("div", { class: "tiles" },
    tile("bits per weight", number(totals.bits_per_weight), plural(units.length, "unit")),
    tile("planned units", bytes(totals.bytes), `${count(totals.bytes)} bytes`),
    tile("stays as it is", bytes(totals.unquantized_bytes), totals.file_bytes ? `file ${bytes(totals.file_bytes)}` : "unquantized rest"),
    tile("predicted loss", number(totals.predicted_loss), within(totals.predicted_stderr, provenance.loss_unit)),
    measured && tile("measured loss", number(measured.kl), within(measured.stderr, measured.unit)),
    measured?.uniform && tile("uniform loss", number(measured.uniform.kl), `${measured.uniform.format}, ${bytes(measured.uniform.bytes)}`));
}

const warnings = (plan) => [...plan.warnings, plan.measured?.fallback].filter(Boolean).map((words) => h("p", { class: "problem" }, words));

export function certificateWords(found) {
  const limits = Object.entries(found.limits ?? {}).map(([name, value]) => `${name === "bytes" ? bytes(value) : `${name} ${count(value)}`}`).join(" and ");
  const within = limits ? ` within ${limits}` : "";
  if (found.status === "infeasible") return ["Infeasible", `: nothing fits${within}. The smallest that can be reached is ${Object.entries(found.smallest_limit ?? {}).map(([name, v]) => (name === "bytes" ? bytes(v) : `${name} ${v}`)).join(", ")}.`];
  if (found.status === "optimal" && !found.gap) return ["Optimal", `: no plan${within} has a lower predicted loss. The lower bound equals the plan's loss.`];
  if (found.status === "optimal") return ["Optimal", `: no plan${within} has a lower predicted loss. A complete search (${found.proof}) closed the gap of ${number(found.gap)} to the bound.`];
  const share = found.loss ? found.gap / Math.abs(found.loss) : 0;
  return ["Bounded", `: no plan${within} can be better by more than ${number(found.gap)} (${percent(share, share < 0.001 ? 4 : 2)} of the loss).`];
}

export function certificateCard(found) {
  const [verdict, rest] = certificateWords(found);
  return card("Certificate", h("p", { class: `verdict ${found.status}` }, h("b", {}, verdict), rest),
    facts([["predicted loss", number(found.loss, 6)], ["lower bound", number(found.lower_bound, 6)], ["gap", found.gap === 0 ? "0 (proved)" : number(found.gap)],
      ...Object.entries(found.cost ?? {}).map(([name, v]) => [`uses ${name}`, `${count(v)}${found.limits?.[name] ? ` of ${count(found.limits[name])} (${percent(v / found.limits[name], 1)})` : ""}`]),
      ...Object.entries(found.multipliers ?? {}).map(([name, v]) => [`price of a ${name === "bytes" ? "byte" : name}`, `${number(v)} of loss`])]),
    h("p", { class: "note-line" }, "Anyone can recompute it in one pass: ", h("code", {}, "bitwright verify plan.json --problem …")));
}

function certificate(plan) {
  return certificateCard(plan.certificate);
}

function quality({ measured, totals, provenance }) {
  if (!measured) return card("Quality", h("p", { class: "muted" }, "This plan was not measured."), h("p", {}, `Predicted loss ${number(totals.predicted_loss)}${provenance.loss_unit ? ` ${provenance.loss_unit}` : ""}.`));
  const wide = (value, stderr) => ({ value, low: value - 1.96 * stderr, high: value + 1.96 * stderr });
  const same = provenance.loss_unit === measured.unit, below = measured.extra?.feasible_uniform;
  const rows = [
    { name: "this plan, measured", tone: "var(--curve)", ...wide(measured.kl, measured.stderr) },
    same && { name: "this plan, predicted", tone: "var(--curve)", hollow: true, ...(totals.predicted_stderr ? wide(totals.predicted_loss, totals.predicted_stderr) : { value: totals.predicted_loss }) },
    measured.uniform && { name: `${measured.uniform.format}, measured`, tone: "var(--other)", ...wide(measured.uniform.kl, measured.uniform.stderr) },
    below && below.format !== measured.uniform?.format && { name: `${below.format}, measured`, tone: "var(--other)", ...wide(below.kl, below.stderr) },
    same && Number.isFinite(measured.uniform?.predicted_loss) && { name: `${measured.uniform.format}, predicted`, tone: "var(--other)", hollow: true, value: measured.uniform.predicted_loss },
  ].filter(Boolean);
  const better = measured.uniform && measured.kl > 0 && `The best uniform plan of no fewer bytes, ${measured.uniform.format}, takes ${percent(measured.uniform.bytes / totals.bytes - 1, 1)} more bytes (${bytes(measured.uniform.bytes)}); its loss is ${number(measured.uniform.kl / measured.kl, 3)} times this plan's.`;
  const fits = below && measured.kl > 0 && `The best uniform plan within the budget, ${below.format} (${bytes(below.bytes)}), has ${number(below.kl / measured.kl, 3)} times its loss.`;
  return card("Measured beside predicted and uniform", h("div", { class: "scroll wrap", tabindex: "0", role: "region", "aria-label": "measured quality" }, intervals(rows, measured.unit)), better && h("p", {}, better), fits && h("p", {}, fits), h("p", { class: "note-line" }, `Bars are 95 % intervals, on ${count(measured.tokens)} held-out tokens or items.`));
}

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

function roles(plan) {
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

function exports(plan, digest, targets) {
  const shown = h("div", {});
  const run = async (target) => {
    put(shown, h("p", { class: "muted" }, "Exporting …"));
    try {
      const words = await text(`/v1/plans/${encodeURIComponent(digest)}/export/${encodeURIComponent(target.name)}`);
      put(shown, code(words.length > 20000 ? `${words.slice(0, 20000)}\n…` : words, target.summary), h("p", {}, h("button", { type: "button", onclick: () => download(target.file ?? `${target.name}.txt`, words) }, `Download ${target.file ?? ""}`)));
    } catch (error) { put(shown, problem(error)); }
  };
  return card("Export to an engine", h("div", { class: "row" }, targets.map((target) => h("button", { type: "button", title: target.summary, onclick: () => run(target) }, target.name))), h("div", { class: "note-line" }, shown));
}

const SHOWN = 200;

function units(plan) {
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

const provenance = (plan, digest) => [["plan", h("code", {}, digest)], ["model", h("code", {}, plan.model.digest)], ...Object.entries(plan.provenance).map(([name, value]) => [name.replaceAll("_", " "), Array.isArray(value) ? value.join(", ") : String(value)])];
