// What is proved about a choice, in words and numbers.

import { card, facts, h } from "./dom.js";
import { bytes, count, number, percent } from "./format.js";

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
