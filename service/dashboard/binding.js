// Which limits, rules and ties bind a unit, in words, with their values and what each costs the plan.

import { TIES } from "./engines.js";
import { h, table } from "./dom.js";
import { bytes, count, number, percent, plural } from "./format.js";

// Every limit and rule of a plan, those that bind first.
export const everyBinding = (plan) => [...(plan.bindings?.length ? plan.bindings : named(plan.certificate))].sort((a, b) => (b.price > 0) - (a.price > 0));

// {rows of those about unit i, price: of a byte here, priced: by what, toll(format): what the rules add to its score}.
export function bindings(plan, i) {
  const rows = everyBinding(plan).filter((row) => !row.units || row.units.includes(i));
  const limits = rows.filter((row) => row.kind === "limit" && row.name.split("@")[0] === "bytes" && row.price > 0);
  const rules = rows.filter((row) => row.kind === "rule" && row.price > 0);
  return {
    rows,
    price: limits.reduce((sum, row) => sum + row.price, 0),
    priced: limits.length ? limits.map((row) => `the limit on ${row.words}`).join(" and ") : "no limit on bytes binds",
    toll: (format) => rules.reduce((sum, row) => (row.formats?.includes(format) ? sum + (row.sense === "at least" ? -row.price : row.price) : sum), 0),
  };
}

// Plans that were made before bindings were written down: what the certificate's multipliers say.
function named({ multipliers = {}, limits = {}, cost = {} }) {
  return Object.entries(multipliers).map(([name, price]) => {
    const [resource, subset] = name.split("@"), rule = /^rule:(\d+)$/.exec(name);
    if (rule) return { name, kind: "rule", words: `rule number ${Number(rule[1]) + 1} of the problem`, price };
    return { name, kind: "limit", words: `${resource} of ${subset ? subset.replace(/^layer(\d+)$/, "layer $1") : "all planned units"}`, value: limits[name], used: cost[name], price };
  });
}

const amount = (row, value) => (value === undefined ? "–" : row.kind === "limit" && row.name.startsWith("bytes") ? bytes(value) : count(value));
const taken = (row) => (row.value === undefined ? "–" : row.kind === "limit" ? `${amount(row, row.used)} of ${amount(row, row.value)}${row.value > 0 ? ` (${percent(row.used / row.value, 1)})` : ""}` : `${count(row.used)}, ${row.sense} ${count(row.value)}`);

function costs(row) {
  if (!(row.price > 0)) return row.kind === "rule" && row.used === row.value ? "nothing to first order: it is met just so" : "nothing: it does not bind";
  if (row.kind === "rule") return `${number(row.price)} of loss for the last choice that it asks for`;
  return row.name.startsWith("bytes") ? `${number(row.price * 1024)} of loss a KiB that is missing` : `${number(row.price)} of loss for one more`;
}

const told = (row) => ({ what: row.words, kind: row.kind, taken: taken(row), costs: costs(row), binds: row.price > 0 });
const boundTable = (rows, label) => table([
  { title: "kind", cell: (r) => h("span", { class: r.binds ? "" : "muted" }, r.kind) }, { title: "which", cell: (r) => (r.binds ? h("b", {}, r.what) : h("span", { class: "muted" }, r.what)) },
  { title: "taken", cell: (r) => r.taken }, { title: "what it costs", cell: (r) => r.costs },
], rows, { label });

// All limits and rules of a plan: those that bind at once, the others on demand.
export function limitsTable(rows) {
  const shown = rows.map(told), bind = shown.filter((row) => row.binds), idle = shown.filter((row) => !row.binds);
  return h("div", { class: "bound" }, bind.length > 0 && boundTable(bind, "limits and rules that bind"),
    idle.length > 0 && h("details", { open: !bind.length }, h("summary", {}, bind.length ? `${plural(idle.length, "limit or rule", "limits and rules")} that ${idle.length === 1 ? "does" : "do"} not bind` : "None of them binds"), boundTable(idle, "limits and rules that do not bind")));
}

// tie: a row of its own {words, taken, costs}, or null.
export function boundBy({ rows }, tie = null) {
  const shown = rows.map(told);
  if (tie) shown.splice(shown.filter((row) => row.binds).length, 0, { kind: "tie", binds: true, ...tie });
  return h("div", { class: "bound" }, h("h3", {}, "What binds it"), shown.length ? boundTable(shown, "limits, rules and ties of this unit") : h("p", { class: "muted" }, "Nothing: no limit, rule or tie is about this unit."));
}

// The tie group of a unit: which kind, who is in it, and what choosing one by one would gain at this price.
export function tieWords(plan, sensitivities, tied, rows, price) {
  if (tied.length < 2) return null;
  const { n, k, loss, cost } = sensitivities.flat, known = rows.every((r) => r >= 0 && r < n);
  const kinds = known ? Object.entries(sensitivities.families).filter(([, ids]) => ids[rows[0]] >= 0 && rows.every((r) => ids[r] === ids[rows[0]])).map(([kind]) => TIES[kind] ?? kind) : [];
  const names = tied.map((j) => plan.units[j].name), more = names.length - 5;
  let apart = 0, together = Infinity;
  for (const r of known ? rows : []) apart += Math.min(...Array.from({ length: k }, (_, j) => loss[r * k + j] + price * cost[r * k + j]));
  for (let j = 0; known && j < k; j++) together = Math.min(together, rows.reduce((sum, r) => sum + loss[r * k + j] + price * cost[r * k + j], 0));
  const saved = together - apart;
  return {
    what: kinds.length ? kinds.sort((a, b) => a.length - b.length)[0] : "units that share one format",
    taken: `${names.slice(0, 5).join(", ")}${more > 0 ? ` and ${count(more)} more` : ""}`,
    costs: Number.isFinite(saved) ? (saved > 1e-12 * Math.abs(together) ? `${number(saved)} of loss + price × bytes against choosing one by one` : "nothing: each would choose the same") : "–",
  };
}
