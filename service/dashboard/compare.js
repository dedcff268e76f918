// Two plans side by side: what changed, where the bytes moved, predicted and measured difference.

import { get, once } from "./api.js";
import { bitsOf, colour, readable } from "./color.js";
import { card, h, put, table } from "./dom.js";
import { bytes, count, number, plural, short } from "./format.js";
import { problem } from "./parts.js";

export async function compareView(root, { query }) {
  const { jobs } = await get("/v1/jobs?kind=plan&state=succeeded&page_size=200");
  const plans = jobs.filter((job) => job.links.plan).map((job) => ({ digest: job.links.plan.split("/").pop(), words: `${job.request.model} · ${job.request.budget}${job.request.engine ? ` · ${job.request.engine}` : ""} · ${job.links.plan.split(":").pop().slice(0, 8)}` }));
  const known = [...new Map(plans.map((plan) => [plan.digest, plan])).values()];
  const picked = { a: query.get("a") ?? known[0]?.digest ?? "", b: query.get("b") ?? known.find((plan) => plan.digest !== (query.get("a") ?? known[0]?.digest))?.digest ?? "" };
  const result = h("div", {});
  const choose = (name) => {
    const list = known.some((plan) => plan.digest === picked[name]) || !picked[name] ? known : [{ digest: picked[name], words: short(picked[name]) }, ...known];
    return h("div", { class: "field" }, h("label", { for: `plan-${name}` }, `Plan ${name.toUpperCase()}`), h("select", { id: `plan-${name}`, onchange: (event) => { picked[name] = event.target.value; draw(); } }, h("option", { value: "" }, "choose a plan"), list.map((plan) => h("option", { value: plan.digest, selected: plan.digest === picked[name] }, plan.words))));
  };
  put(root, h("div", { class: "head" }, h("h1", {}, "Compare two plans")), card(null, h("div", { class: "form" }, choose("a"), choose("b"))), result);

  async function draw() {
    history.replaceState(null, "", `#/compare?a=${picked.a}&b=${picked.b}`);
    if (!picked.a || !picked.b) return put(result, h("div", { class: "empty" }, h("h2", {}, "Choose two plans"), h("p", {}, known.length ? "" : "There is no finished plan yet.")));
    try {
      const [a, b] = await Promise.all([picked.a, picked.b].map((digest) => once(`/v1/plans/${encodeURIComponent(digest)}`).then(readable)));
      put(result, difference(a, b));
    } catch (error) { put(result, problem(error)); }
  }
  await draw();
}

function difference(a, b) {
  const before = new Map(a.units.map((unit) => [unit.name, unit]));
  const both = b.units.filter((unit) => before.has(unit.name)).map((unit) => ({ name: unit.name, module: unit.module, a: before.get(unit.name), b: unit }));
  const changed = both.filter(differs).sort((x, y) => Math.abs(y.b.bytes - y.a.bytes) - Math.abs(x.b.bytes - x.a.bytes));
  const rows = [["bits per weight", (p) => p.totals.bits_per_weight, number], ["planned bytes", (p) => p.totals.bytes, bytes], ["predicted loss", (p) => p.totals.predicted_loss, number], ["measured loss", (p) => p.measured?.kl, number]];
  const delta = (words, x, y) => (x === undefined || y === undefined ? "–" : `${y >= x ? "+" : "−"}${words(Math.abs(y - x))}${x ? ` (${y >= x ? "+" : "−"}${Math.abs(100 * (y / x - 1)).toFixed(1)} %)` : ""}`);
  const modules = new Map();
  for (const row of both) {
    const found = modules.get(row.module) ?? { module: row.module ?? "unit", a: 0, b: 0, changed: 0 };
    found.a += row.a.bytes;
    found.b += row.b.bytes;
    found.changed += differs(row);
    modules.set(row.module, found);
  }
  const swatch = (format) => [h("span", { class: "swatch", vars: { "--tone": colour(bitsOf(format)) } }), format];
  return [
    a.model.digest !== b.model.digest && h("p", { class: "problem" }, "These plans are for different models; only units of the same name are compared."),
    card("Totals", table([{ title: "total", cell: (r) => r[0] }, { title: "A", number: true, cell: (r) => r[2](r[1](a)) }, { title: "B", number: true, cell: (r) => r[2](r[1](b)) }, { title: "B against A", number: true, cell: (r) => delta(r[2], r[1](a), r[1](b)) }], rows, { label: "totals" })),
    both.length > 0 && card("Where the bytes moved", table([{ title: "module", cell: (r) => r.module }, { title: "A", number: true, cell: (r) => bytes(r.a) }, { title: "B", number: true, cell: (r) => bytes(r.b) }, { title: "B against A", number: true, cell: (r) => (r.a === r.b ? "–" : `${r.b > r.a ? "+" : "−"}${bytes(Math.abs(r.b - r.a))}`) }, { title: "units changed", number: true, cell: (r) => count(r.changed) }], [...modules.values()], { label: "bytes by module" })),
    card(`${plural(changed.length, "unit")} of ${count(both.length)} changed`, changed.length ? table([{ title: "unit", cell: (r) => h("span", { class: "mono" }, r.name) }, { title: "A", cell: (r) => swatch(r.a.format) }, { title: "B", cell: (r) => swatch(r.b.format) }, { title: "bytes", number: true, cell: (r) => `${r.b.bytes >= r.a.bytes ? "+" : "−"}${bytes(Math.abs(r.b.bytes - r.a.bytes))}` }, { title: "predicted loss", number: true, cell: (r) => `${r.b.loss >= r.a.loss ? "+" : "−"}${number(Math.abs(r.b.loss - r.a.loss))}` }], changed.slice(0, 300), { label: "changed units" }) : h("p", { class: "muted" }, both.length ? "Both plans choose the same formats." : "No unit stands in both plans.")),
  ];
}

const differs = ({ a, b }) => (a.exact ?? a.format) !== (b.exact ?? b.format);
