// Why one unit got its format: its losses over the menu, its slope against the price of a byte, what binds it, and what
// the next better or cheaper format would cost the whole.

import { lowerHull } from "./allocate.js";
import { bindings, boundBy, tieWords } from "./binding.js";
import { menuChart } from "./charts.js";
import { bitsOf, colour, partsOf } from "./color.js";
import { card, facts, h, table } from "./dom.js";
import { bytes, count, number, percent } from "./format.js";

export function whyPanel(plan, sensitivities, i) {
  const unit = plan.units[i];
  const title = `Why ${unit.format} for ${unit.name}?`;
  if (!sensitivities) return card(title, h("p", { class: "muted" }, "The sensitivity table of this plan is not on this server."), boundBy(bindings(plan, i)));
  const row = sensitivities.units.findIndex((known) => known.name === unit.name);
  if (row < 0) return card(title, h("p", { class: "muted" }, "The sensitivity table does not hold this unit."));
  const data = sensitivities.flat, tied = (plan.ties ?? []).find((group) => group.includes(i)) ?? [i];
  const rows = unit.exact ? [row] : tied.map((j) => sensitivities.units.findIndex((known) => known.name === plan.units[j].name));
  const binding = bindings(plan, i), price = binding.price;
  const menu = sensitivities.formats.map((format, j) => ({
    format, j, cost: sum(rows.map((r) => data.cost[r * data.k + j])), loss: sum(rows.map((r) => data.loss[r * data.k + j])), stderr: Math.hypot(...rows.map((r) => data.stderr[r * data.k + j])),
  })).map((m) => ({ ...m, score: m.loss + price * m.cost + binding.toll(m.format) }));
  if (unit.exact) return card(title, parts(unit, menu, sensitivities.loss_unit), boundBy(binding));
  const chosen = menu.find((entry) => entry.format === unit.format);
  if (!chosen) return card(title, h("p", { class: "muted" }, "The table does not hold this format."), boundBy(binding));
  const hull = lowerHull(menu.map((m) => m.loss), menu.map((m) => m.cost), 0, menu.length);
  const at = hull.indexOf(chosen.j);
  const better = at >= 0 && at + 1 < hull.length ? menu[hull[at + 1]] : null, cheaper = at > 0 ? menu[hull[at - 1]] : null;
  const best = Math.min(...menu.map((m) => m.score));
  const points = menu.map((m) => ({ name: m.format, bytes: m.cost, loss: m.loss, bits: bitsOf(m.format), chosen: m === chosen, on: hull.includes(m.j) }));
  const tolls = menu.some((m) => binding.toll(m.format) !== 0);
  return card(title,
    h("p", {}, sentence(chosen, better, cheaper, price, at)),
    Number.isFinite(chosen.loss) && h("div", { class: "scroll wrap narrow", tabindex: "0", role: "region", "aria-label": "loss of each format" }, menuChart(points, price, `predicted loss (${sensitivities.loss_unit})`)),
    price > 0 && h("p", { class: "note-line" }, "Dashed: equal loss + price × bytes through the chosen format. A format below it would be better at this price."),
    table([
      { title: "format", cell: (m) => [swatch(m.format), m.format === unit.format ? h("b", {}, `${m.format} (chosen)`) : m.format] },
      { title: "bytes", number: true, cell: (m) => bytes(m.cost) }, { title: "predicted loss", number: true, cell: (m) => (Number.isFinite(m.loss) ? `${number(m.loss)}${m.stderr ? ` ± ${number(m.stderr, 2)}` : ""}` : "not allowed") },
      { title: `loss + price × bytes${tolls ? " ± rules" : ""}`, number: true, cell: (m) => (Number.isFinite(m.score) ? `${number(m.score, 4)}${m.score <= best + 1e-9 * Math.abs(best) ? " ◂ least" : ""}` : "–") },
      { title: "whole plan", number: true, cell: (m) => (m.j === chosen.j || !Number.isFinite(m.loss) ? "–" : `${signed(m.loss - chosen.loss)} loss, ${m.cost >= chosen.cost ? "+" : "−"}${bytes(Math.abs(m.cost - chosen.cost))}`) },
    ], menu, { label: "the menu of this unit" }),
    facts([["price of a byte", `${number(price)} of loss, ${number(price * 2 ** 20)} a MiB (${binding.priced})`], ["engine", plan.engine ? `${plan.engine}${menu.some((m) => !Number.isFinite(m.loss)) ? "; formats it does not load here are not allowed" : ""}` : null]]),
    boundBy(binding, tieWords(plan, sensitivities, tied, rows, price)));
}

const swatch = (format) => h("span", { class: "swatch", vars: { "--tone": colour(bitsOf(format)) } });

// A unit whose parts chose one by one: how many took what, beside what the whole would have lost in one format.
function parts(unit, menu, lossUnit) {
  const { kind, members, counts, total } = partsOf(unit.exact), [cut, block] = kind.split(":"), words = block ? `blocks of ${block} ${cut}s` : `${cut}s`, taken = new Map(members.map((name, j) => [name, counts[j]]));
  return [h("p", {}, `Its ${count(total)} ${words} chose one by one: those where a wrong weight costs most got the most bits. Together they lose ${number(unit.loss)} in ${bytes(unit.bytes)}.`),
    table([{ title: "format", cell: (m) => [swatch(m.format), m.format] }, { title: `${words} that took it`, number: true, cell: (m) => count(taken.get(m.format) ?? 0) }, { title: "share", number: true, cell: (m) => percent((taken.get(m.format) ?? 0) / total, 1) },
      { title: "bytes, whole unit in it", number: true, cell: (m) => bytes(m.cost) }, { title: `loss, whole unit in it (${lossUnit})`, number: true, cell: (m) => (Number.isFinite(m.loss) ? number(m.loss) : "not allowed") }], menu, { label: "parts by format" })];
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const signed = (value) => `${value < 0 ? "−" : "+"}${number(Math.abs(value))}`;

function sentence(chosen, better, cheaper, price, at) {
  const parts = [];
  if (better) parts.push(`The next better format, ${better.format}, would save ${number((chosen.loss - better.loss) / (better.cost - chosen.cost))} of loss a byte, ${price ? `${(chosen.loss - better.loss) / (better.cost - chosen.cost) <= price ? "less" : "more"} than a byte is worth here (${number(price)})` : "and the budget does not bind"}.`);
  else parts.push("No format of the menu predicts a lower loss.");
  if (cheaper) parts.push(`The next cheaper, ${cheaper.format}, would free ${bytes(chosen.cost - cheaper.cost)} and cost ${number((cheaper.loss - chosen.loss) / (chosen.cost - cheaper.cost))} of loss a byte.`);
  else if (at === 0) parts.push("It is the cheapest format that pays.");
  if (at < 0) parts.unshift("This format lies off the unit's lower hull: it fills what was left of the budget, or a rule asks for it.");
  return parts.join(" ");
}
