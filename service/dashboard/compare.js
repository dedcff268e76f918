// Two plans, or two metrics at one budget: what changed, where the bytes moved, predicted and measured difference.

import { Allocator } from "./allocate.js";
import { get, once, tableOf } from "./api.js";
import { bitsOf, colour, readable, shiftColour, shiftInk, shiftText } from "./color.js";
import { card, h, put, table } from "./dom.js";
import { bytes, count, number, percent, plural, short } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { problem } from "./parts.js";

const WORDS = { plans: { one: "Plan", link: "plan" }, tables: { one: "Metric", link: "sensitivities" } };

export async function compareView(root, { query }) {
  const what = query.get("what") === "tables" ? "tables" : "plans", words = WORDS[what];
  const { jobs } = await get("/v1/jobs?state=succeeded&page_size=200");
  const known = [...new Map(jobs.filter((job) => job.links[words.link]).map((job) => { const digest = job.links[words.link].split("/").pop(); return [digest, { digest, model: job.request.model, words: named(job, digest, what) }]; })).values()];
  const first = query.get("a") ?? (known.find((entry) => known.some((other) => other !== entry && other.model === entry.model)) ?? known[0])?.digest ?? "";
  const others = known.filter((entry) => entry.digest !== first), alike = known.find((entry) => entry.digest === first)?.model;
  const picked = { a: first, b: query.get("b") ?? others.find((entry) => entry.model === alike)?.digest ?? "", bits: Number(query.get("bits")) || 4 };
  const result = h("div", {});
  const choose = (name) => {
    const list = known.some((entry) => entry.digest === picked[name]) || !picked[name] ? known : [{ digest: picked[name], words: short(picked[name]) }, ...known];
    return h("div", { class: "field" }, h("label", { for: `pick-${name}` }, `${words.one} ${name.toUpperCase()}`), h("select", { id: `pick-${name}`, onchange: (event) => { picked[name] = event.target.value; draw(); } }, h("option", { value: "" }, `choose a ${words.one.toLowerCase()}`), list.map((entry) => h("option", { value: entry.digest, selected: entry.digest === picked[name] }, entry.words))));
  };
  const bits = what === "tables" && h("div", { class: "field" }, h("label", { for: "pick-bits" }, "Budget (bits per weight)"), h("input", { id: "pick-bits", type: "number", min: "1", max: "16", step: "0.1", value: picked.bits, onchange: (event) => { picked.bits = Number(event.target.value); draw(); } }));
  const tab = (name, text) => h("a", { class: `button ${what === name ? "primary" : ""}`, href: `#/compare?what=${name}`, "aria-current": what === name ? "true" : null }, text);
  put(root, h("div", { class: "head" }, h("h1", {}, `Compare two ${what === "plans" ? "plans" : "metrics"}`), h("div", { class: "row" }, tab("plans", "Plans"), tab("tables", "Metrics"))), card(null, h("div", { class: "form" }, choose("a"), choose("b"), bits)), result);

  async function draw() {
    history.replaceState(null, "", `#/compare?${new URLSearchParams({ ...(what === "tables" ? { what, bits: picked.bits } : {}), a: picked.a, b: picked.b })}`);
    if (!picked.a || !picked.b) return put(result, h("div", { class: "empty" }, h("h2", {}, `Choose two ${what === "plans" ? "plans" : "metrics"}`), h("p", {}, known.length > 1 ? "" : known.length ? "There is only one yet: start another job to compare it with." : "There is no finished job yet.")));
    try {
      const [a, b] = await Promise.all([picked.a, picked.b].map((digest) => (what === "tables" ? tableOf(digest) : once(`/v1/plans/${encodeURIComponent(digest)}`))));
      put(result, what === "plans" ? difference(readable(a), readable(b)) : metricDifference(a, b, picked.bits));
    } catch (error) { put(result, problem(error)); }
  }
  await draw();
}

const named = (job, digest, what) => [job.request.model, what === "plans" ? job.request.budget : job.request.metric ?? "the recipe's metric", what === "plans" && job.request.engine, digest.replace("sha256:", "").slice(0, 8)].filter(Boolean).join(" · ");

function difference(a, b) {
  const rows = [["bits per weight", (p) => p.totals.bits_per_weight, number], ["planned bytes", (p) => p.totals.bytes, bytes], ["predicted loss", (p) => p.totals.predicted_loss, number], ["measured loss", (p) => p.measured?.kl, number]];
  const unlike = a.provenance.table !== b.provenance.table, apart = a.measured && b.measured && a.measured.unit === b.measured.unit && Math.abs(a.measured.kl - b.measured.kl) / Math.hypot(a.measured.stderr, b.measured.stderr);
  return [
    a.model.digest !== b.model.digest && h("p", { class: "warning" }, "These plans are for different models; only units of the same name are compared."),
    totals(rows, a, b),
    unlike && h("p", { class: "note-line" }, "The plans were predicted from different sensitivity tables: their predicted losses cannot be compared with each other, the measured ones can."),
    apart && Number.isFinite(apart) ? h("p", { class: "note-line" }, apart > 1.96 ? `The measured losses differ by ${number(apart)} standard errors, taken as independent.` : `The measured losses differ by ${number(apart)} standard errors: too little to call one better.`) : null,
    ...changes(joined(a.units, b.units), !unlike),
  ];
}

// Two tables of one model: what each would choose within the same bytes, and what each thinks of the other's choice.
function metricDifference(a, b, bits) {
  const budget = Math.floor((bits * a.weights) / 8), plans = [a, b].map((found) => new Allocator(found).at(budget));
  if (plans.includes(null)) return h("p", { class: "warning" }, `No plan of ${number(bits)} bits per weight exists in both tables; the least is ${number((8 * Math.max(new Allocator(a).least, new Allocator(b).least)) / a.weights, 3)}.`);
  const units = [a, b].map((found, t) => found.units.map((unit, i) => { const at = i * found.formats.length + plans[t].choice[i]; return { name: unit.name, module: unit.module, layer: unit.layer, expert: unit.expert, elements: unit.elements, format: found.formats[plans[t].choice[i]], bytes: found.flat.cost[at], loss: found.flat.loss[at] }; }));
  const rows = joined(...units), same = rows.filter((row) => row.a.format === row.b.format).length;
  return [
    a.model.digest !== b.model.digest && h("p", { class: "warning" }, "These tables are of different models; only units of the same name are compared."),
    card("Agreement", h("div", { class: "tiles" }, tileOf("same format", rows.length ? percent(same / rows.length, 1) : "–", `${count(same)} of ${count(rows.length)} units`), tileOf("rank correlation", number(ranks(a, b)), "of the losses, all units and formats in both"), tileOf("A's own plan", number(plans[0].loss), `${a.metric}, ${a.loss_unit}`), tileOf("B's own plan", number(plans[1].loss), `${b.metric}, ${b.loss_unit}`)),
      h("p", { class: "note-line" }, "Losses of different metrics are in their own units; only ranks and choices can be compared. To measure which choice is better, start a plan job with each metric and compare the plans.")),
    ...changes(rows, false),
  ];
}

const tileOf = (name, value, note) => h("div", { class: "tile" }, h("div", { class: "name" }, name), h("div", { class: "value" }, value), h("div", { class: "note" }, note));

function joined(before, after) {
  const found = new Map(before.map((unit) => [unit.name, unit]));
  return after.filter((unit) => found.has(unit.name)).map((unit) => ({ name: unit.name, module: unit.module ?? "unit", a: found.get(unit.name), b: unit }));
}

// Spearman's correlation of the finite losses that both tables have.
function ranks(a, b) {
  const at = new Map(b.units.map((unit, i) => [unit.name, i])), pairs = [];
  a.units.forEach((unit, i) => {
    const other = at.get(unit.name);
    if (other === undefined) return;
    a.formats.forEach((format, j) => { const k = b.formats.indexOf(format), x = a.flat.loss[i * a.flat.k + j], y = k < 0 ? Infinity : b.flat.loss[other * b.flat.k + k]; if (x < Infinity && y < Infinity) pairs.push([x, y]); });
  });
  const rank = (side) => { const order = pairs.map((_, i) => i).sort((p, q) => pairs[p][side] - pairs[q][side]), found = new Float64Array(pairs.length); order.forEach((i, r) => { found[i] = r; }); return found; };
  const [x, y] = [rank(0), rank(1)], mean = (pairs.length - 1) / 2;
  let both = 0, own = 0;
  for (let i = 0; i < pairs.length; i++) { both += (x[i] - mean) * (y[i] - mean); own += (x[i] - mean) ** 2; }
  return own ? both / own : NaN;
}

const delta = (words, x, y) => (x === undefined || y === undefined ? "–" : `${y >= x ? "+" : "−"}${words(Math.abs(y - x))}${x ? ` (${y >= x ? "+" : "−"}${Math.abs(100 * (y / x - 1)).toFixed(1)} %)` : ""}`);
const totals = (rows, a, b) => card("Totals", table([{ title: "total", cell: (r) => r[0] }, { title: "A", number: true, cell: (r) => r[2](r[1](a)) }, { title: "B", number: true, cell: (r) => r[2](r[1](b)) }, { title: "B against A", number: true, cell: (r) => delta(r[2], r[1](a), r[1](b)) }], rows, { label: "totals" }));
const moved = (value, words) => (value === 0 ? "–" : `${value > 0 ? "+" : "−"}${words(Math.abs(value))}`);

// losses: both sides predict in one unit, so that their difference means something.
function changes(both, losses) {
  const changed = both.filter(differs).sort((x, y) => Math.abs(y.b.bytes - y.a.bytes) - Math.abs(x.b.bytes - x.a.bytes));
  const modules = new Map();
  for (const row of both) {
    const found = modules.get(row.module) ?? { module: row.module, a: 0, b: 0, changed: 0 };
    found.a += row.a.bytes;
    found.b += row.b.bytes;
    found.changed += differs(row);
    modules.set(row.module, found);
  }
  const rows = [...modules.values()], most = Math.max(1, ...rows.map((row) => Math.abs(row.b - row.a)));
  const swatch = (format) => [h("span", { class: "swatch", vars: { "--tone": colour(bitsOf(format)) } }), format];
  const bar = (row) => h("span", { class: "shift", "aria-hidden": "true" }, h("i", { class: row.b < row.a ? "less" : "more", vars: { "--share": `${((50 * Math.abs(row.b - row.a)) / most).toFixed(1)}%` } }));
  return [
    changed.length > 0 && card("What changed, by layer and module", shiftMap(both)),
    both.length > 0 && card("Where the bytes moved", table([{ title: "module", cell: (r) => r.module }, { title: "A", number: true, cell: (r) => bytes(r.a) }, { title: "B", number: true, cell: (r) => bytes(r.b) }, { title: "fewer ← B → more", cell: bar }, { title: "B against A", number: true, cell: (r) => moved(r.b - r.a, bytes) }, { title: "units changed", number: true, cell: (r) => count(r.changed) }], rows, { label: "bytes by module" })),
    card(`${plural(changed.length, "unit")} of ${count(both.length)} changed`, changed.length ? h("div", { class: "units" }, table([{ title: "unit", cell: (r) => h("span", { class: "mono" }, r.name) }, { title: "A", cell: (r) => swatch(r.a.format) }, { title: "B", cell: (r) => swatch(r.b.format) }, { title: "bytes", number: true, cell: (r) => moved(r.b.bytes - r.a.bytes, bytes) }, ...(losses ? [{ title: "predicted loss", number: true, cell: (r) => moved(r.b.loss - r.a.loss, number) }] : [])], changed.slice(0, 300), { label: "changed units" })) : h("p", { class: "muted" }, both.length ? "Both choose the same formats." : "No unit stands in both."), changed.length > 300 && h("p", { class: "note-line" }, "The 300 that moved most bytes are shown.")),
  ];
}

// The change of bits of each unit from A to B.
function shiftMap(both) {
  const names = new Map(), choice = Uint16Array.from(both, ({ a, b }) => { const name = a.format === b.format ? "no change" : `${a.format} → ${b.format}`; if (!names.has(name)) names.set(name, names.size); return names.get(name); });
  const bits = new Map(both.map(({ a, b }) => [a.format === b.format ? "no change" : `${a.format} → ${b.format}`, bitsOf(b.format) - bitsOf(a.format)]));
  const map = new HeatMap(both.map(({ name, b }) => ({ ...b, name })), { scale: { of: (name) => bits.get(name), colour: shiftColour, ink: shiftInk, text: shiftText, label: "change of bits by module and layer", unit: "bits more", legend: "bits, B against A" } });
  map.show({ names: [...names.keys()], choice, bytes: (i) => both[i].b.bytes - both[i].a.bytes, loss: (i) => both[i].b.loss - both[i].a.loss, stderr: () => 0 });
  return map.element;
}

const differs = ({ a, b }) => (a.exact ?? a.format) !== (b.exact ?? b.format);
