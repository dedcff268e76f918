// A plan as a picture, with its certificate in words, what was measured and what loads it. Served and in reports alike.

import { Allocator } from "./allocate.js";
import { everyBinding } from "./binding.js";
import { certificateCard } from "./certificate.js";
import { readable } from "./color.js";
import { card, download, facts, h, put } from "./dom.js";
import { memoryCard } from "./device.js";
import { Lights, Preflight } from "./engines.js";
import { bytes, count, number, percent, plural, short } from "./format.js";
import { HeatMap, picture } from "./heatmap.js";
import { problem, tile } from "./parts.js";
import { exportsCard, rolesCard, unitsCard } from "./plan_cards.js";
import { qualityCard } from "./quality.js";
import { stability } from "./stability.js";
import { listedGroups } from "./table.js";
import { whyPanel } from "./why.js";

// source: {plan, digest, unit: name to explain at once, targets, exported(target): text, menus(): document; table(): as columns.js
// reads it, or null; links: {frontier, compare}, onunit(name)}.
export async function planPage(root, given) {
  const source = { ...given, plan: readable(given.plan), whole: given.plan }, { plan } = source, why = h("div", {});
  const map = new HeatMap(plan.units, { onpick: pick });
  const quality = h("div", {}, qualityCard(plan)), engines = card("Preflight: what loads this plan", h("p", { class: "muted" }, "Loading …")), sure = card("How sure it is", certain(plan));
  put(root, head(source), tiles(plan), warnings(plan),
    card("Bits by layer and module", map.element, h("p", { class: "note-line" }, "Point at a cell, or walk with the arrow keys; Enter or a click says why it got its format.")),
    why,
    h("div", { class: "cards" }, h("div", {}, certificateCard(plan.certificate, everyBinding(plan)), plan.memory && memoryCard(plan.memory), sure, rolesCard(plan)), h("div", {}, quality, engines, exportsCard(source))),
    unitsCard(plan), card("Where it comes from", facts(provenance(source))));
  map.show(picture(plan.units));
  const named = source.unit ? plan.units.findIndex((unit) => unit.name === source.unit) : -1;
  if (named >= 0) pick(named);
  let gone = false;
  deepen().catch((error) => { if (!gone) put(engines, h("h2", {}, "Preflight"), problem(error)); });
  return () => { gone = true; };

  async function pick(i) {
    put(why, h("p", { class: "muted" }, "Loading …"));
    try { put(why, whyPanel(plan, await source.table(), i)); source.onunit?.(plan.units[i].name); } catch (error) { put(why, problem(error)); }
    why.scrollIntoView({ block: "nearest" });
  }

  // What is asked for after the page stands: engines; and, of the sensitivity table, the thumb rule and stability.
  async function deepen() {
    const menus = await source.menus();
    if (gone) return;
    const judge = new Preflight(menus), lights = new Lights(judge);
    lights.show(judge.judge(Uint16Array.from(plan.units, (one) => menus.formats.indexOf(one.label ?? one.format))));
    put(engines, h("h2", {}, "Preflight: what loads this plan"), lights.element);
    const table = await source.table();
    if (gone || !table) return;
    const choice = tableChoice(plan, table), preflight = new Preflight(table.menus);
    const options = { group: tableTies(plan, table), allowed: preflight.engines.some((e) => e.name === plan.engine) ? preflight.allowed(plan.engine) : undefined };
    const budget = plan.certificate.limits?.bytes ?? plan.totals.bytes;
    try {
      put(quality, qualityCard(plan, new Allocator(table, [], options).positional(budget)));
    } catch { return; } // the table holds no format that this plan's engine loads for some unit: nothing to compare with
    if (plan.redrawn) return;
    const plain = !plan.measured?.fallback && choice.every((j) => j >= 0) && Object.keys(plan.certificate.multipliers ?? {}).every((name) => name === "bytes");
    const found = plain && await stability(table, choice, budget, options);
    if (gone) return;
    const why = plan.measured?.fallback ? "This plan was taken because it measured better; drawing predicted losses again says nothing about it." : table.flat.stderr.some((v) => v > 0) ? "The plan does not say how many units would keep their format under redrawn losses." : `The metric ${table.metric} gives no standard errors, so losses cannot be drawn again; measuring the plan tells more.`;
    put(sure, h("h2", {}, "How sure it is"), certain(plan, found ? { ...found, units: found.units, names: table.units.map((one) => one.name) } : null), !found && h("p", { class: "note-line" }, why));
  }
}

function tableChoice(plan, table) {
  const formats = new Map(plan.units.map((unit) => [unit.name, table.formats.indexOf(unit.format)]));
  return Int32Array.from(table.units, (unit) => formats.get(unit.name) ?? -1);
}

function tableTies(plan, table) {
  const at = new Map(table.units.map((unit, i) => [unit.name, i]));
  return listedGroups(table.units.length, (plan.ties ?? []).map((group) => group.map((i) => at.get(plan.units[i].name)).filter((i) => i !== undefined)));
}

function head({ plan, whole, digest, links }) {
  return h("div", { class: "head" },
    h("div", {}, h("h1", {}, plan.model.ref), h("p", { class: "muted" }, [digest && `plan ${short(digest)}`, plan.budget && `budget ${plan.budget}`, plan.engine && `for ${plan.engine}`, plan.model.architecture].filter(Boolean).join(" · "))),
    h("div", { class: "row" },
      links?.frontier && h("a", { class: "button", href: links.frontier }, "Drag the budget"),
      links?.compare && h("a", { class: "button", href: links.compare }, "Compare"),
      h("button", { type: "button", class: "primary", onclick: () => download("plan.json", JSON.stringify(whole), "application/json") }, "Download")));
}

function tiles({ totals, measured, units, provenance: from }) {
  const within = (stderr, unit) => [stderr ? `± ${number(1.96 * stderr, 2)} (95 %)` : "", unit].filter(Boolean).join(", ");
  return h("div", { class: "tiles" },
    tile("bits per weight", number(totals.bits_per_weight, 4), plural(units.length, "unit")),
    tile("planned units", bytes(totals.bytes), `${count(totals.bytes)} bytes`),
    tile("stays as it is", bytes(totals.unquantized_bytes), totals.file_bytes ? `file ${bytes(totals.file_bytes)}` : "unquantized rest"),
    tile("predicted loss", number(totals.predicted_loss), within(totals.predicted_stderr, from.loss_unit)),
    measured && tile("measured loss", number(measured.kl), within(measured.stderr, measured.unit)),
    measured?.uniform && tile("uniform loss", number(measured.uniform.kl), `${measured.uniform.format}, ${bytes(measured.uniform.bytes)}`));
}

const warnings = (plan) => [...(plan.warnings ?? []), plan.measured?.fallback].filter(Boolean).map((words) => h("p", { class: "warning" }, words));

// Predicted loss with its error, and how much of the plan would stay if the losses were drawn again.
function certain({ totals, measured, provenance: from, units, redrawn }, found = redrawn && kept(redrawn, units)) {
  const expected = from.prediction?.kl > 0 ? from.prediction : null, resampled = from.prediction?.stability;
  const off = measured && measured.unit === from.loss_unit && totals.predicted_loss > 0 ? measured.kl / totals.predicted_loss : null;
  const shaky = found ? [...found.kept].map((kept, i) => [kept, i]).filter(([kept]) => kept < 1).sort((a, b) => a[0] - b[0]).slice(0, 5) : [];
  return [facts([
    ["predicted loss", `${number(totals.predicted_loss)}${totals.predicted_stderr ? ` ± ${number(1.96 * totals.predicted_stderr, 2)} (95 %)` : ""}`],
    ["expected when really run", expected && `${number(expected.kl)}, 95 % between ${number(expected.low)} and ${number(expected.high)}`],
    ["measured over predicted", off && `${number(off)} ×`],
    ["calibration drawn again", resampled && `${percent(resampled.changed, 1)} of the units change format, on average of ${count(resampled.tables)} tables; that costs ${percent(resampled.regret, 1)} of the loss`],
    ["stable units", found && `${percent(found.units, 1)} keep their format when losses are drawn again (${percent(found.bytes, 1)} of the bytes)`],
    ["never change", found && `${count(found.kept.filter((kept) => kept > 1 - 1e-9).length)} of ${count(units.length)}`],
  ]),
  shaky.length > 0 && h("div", {}, h("h3", {}, "Least sure"), h("ul", { class: "plain" }, shaky.map(([kept, i]) => h("li", {}, h("span", { class: "mono" }, found.names[i]), ` keeps its format in ${percent(kept)}`)))),
  found && h("p", { class: "note-line" }, `In ${found.draws} draws every loss is moved by an independent normal error of its standard error, and the plan is made anew within the same limits, rules and ties.`)];
}

// What a plan says of its redraws, as `stability` gives it.
function kept({ draws, units: share, bytes: size, kept: some }, units) {
  const all = new Float64Array(units.length).fill(1);
  for (const [i, part] of some) all[i] = part;
  return { draws, units: share, bytes: size, kept: all, names: units.map((unit) => unit.name) };
}

const provenance = ({ plan, digest }) => [["plan", digest && h("code", {}, digest)], ["model", h("code", {}, plan.model.digest)], ...Object.entries(plan.provenance).filter(([name]) => name !== "prediction").map(([name, value]) => [name.replaceAll("_", " "), Array.isArray(value) ? value.join(", ") : typeof value === "object" && value ? JSON.stringify(value) : String(value)])];
