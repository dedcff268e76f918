// What is proved about a choice, in words and numbers.

import { limitsTable } from "./binding.js";
import { card, facts, h } from "./dom.js";
import { bytes, count, number, percent, plural } from "./format.js";

// What a plan must keep within: one or two limits by name, many by their number.
function within(found, rules) {
  const limits = Object.entries(found.limits ?? {}), shown = limits.length > 2 ? limits.filter(([name]) => !name.includes("@")) : limits;
  const words = shown.map(([name, value]) => (name === "bytes" ? bytes(value) : `${name} ${count(value)}`));
  if (limits.length > shown.length) words.push(plural(limits.length - shown.length, "further limit"));
  if (rules) words.push(plural(rules, "rule"));
  const list = words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words[0];
  return list ? ` within ${list}` : "";
}

export function certificateWords(found, rules = 0) {
  const inside = within(found, rules);
  if (found.status === "infeasible") return ["Infeasible", `: nothing fits${inside}. The smallest that can be reached is ${Object.entries(found.smallest_limit ?? {}).map(([name, v]) => (name === "bytes" ? bytes(v) : `${name} ${v}`)).join(", ")}.`];
  if (found.status === "optimal" && !found.gap) return ["Optimal", `: no plan${inside} has a lower predicted loss. The lower bound equals the plan's loss.`];
  if (found.status === "optimal") return ["Optimal", `: no plan${inside} has a lower predicted loss. A complete search (${found.proof}) closed the gap of ${number(found.gap)} to the bound.`];
  const most = found.case_bound === undefined ? found.gap : found.loss - found.case_bound, share = found.loss ? most / Math.abs(found.loss) : 0;
  return ["Bounded", `: no plan${inside} can be better by more than ${number(most)} (${percent(share, share < 0.001 ? 4 : 2)} of the loss).`];
}

// rows: the limits and rules in words, as binding.js gives them; without them what the certificate itself says.
export function certificateCard(found, rows = null) {
  const rules = Object.keys(found.multipliers ?? {}).filter((name) => name.startsWith("rule:")).length;
  const [verdict, rest] = certificateWords(found, rules), many = rows && rows.length > 1;
  const own = many ? [] : [
    ...Object.entries(found.cost ?? {}).map(([name, v]) => [`uses ${name}`, `${count(v)}${found.limits?.[name] ? ` of ${count(found.limits[name])} (${percent(v / found.limits[name], 1)})` : ""}`]),
    ...Object.entries(found.multipliers ?? {}).map(([name, v]) => [`price of a ${name === "bytes" ? "byte" : name}`, `${number(v)} of loss`])];
  return card("Certificate", h("p", { class: `verdict ${found.status}` }, h("b", {}, verdict), rest),
    facts([["predicted loss", number(found.loss, 6)], ["lower bound", number(found.lower_bound, 6)], ["gap", found.gap === 0 ? "0 (proved)" : number(found.gap)], ...own]),
    many && limitsTable(rows),
    h("p", { class: "note-line" }, "Anyone can recompute it in one pass: ", h("code", {}, "bitwright verify plan.json --problem …")));
}
