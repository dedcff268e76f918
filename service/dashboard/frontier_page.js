// The frontier of a sensitivity table: drag the budget, and plan, bytes, engines and proof follow.

import { Allocator } from "./allocate.js";
import { frontierChart, key } from "./frontier_chart.js";
import { card, h, put } from "./dom.js";
import { Lights, Preflight, TIES } from "./engines.js";
import { bytes, count, number, percent, plural } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { certificateCard } from "./certificate.js";
import { problem } from "./parts.js";
import { RoleBar } from "./roles.js";
import { tieGroups } from "./table.js";

const STEPS = 1000;

// source: {table, bytes, ties, engine: where to begin; prove({ties, bytes, engine}): solution, or null; moved({bytes, ties,
// engine}): told when a drag rests; within: part of another page; start({bytes, engine}): address of a form that starts a job, or null}.
export function frontierPage(root, source) {
  const { table } = source;
  const kinds = Object.keys(TIES).filter((kind) => table.families[kind]);
  const tied = new Set((source.ties ?? "").split(",").filter((kind) => kinds.includes(kind)));
  const preflight = new Preflight(table.menus), data = table.flat;
  let engine = preflight.engines.some((known) => known.name === source.engine) ? source.engine : "";
  let allocator, chart, budget, pending = null, resting = null;

  const map = new HeatMap(table.units), roles = new RoleBar(table), lights = new Lights(preflight, { onchoose: choose });
  const chartHolder = h("div", {}), readout = new Readout(), proof = h("div", {}), told = h("p", { class: "note-line", role: "status" });
  const slider = h("input", { type: "range", min: 0, max: STEPS, step: 1, "aria-label": "budget", oninput: () => move(chart.from(slider.value / STEPS)) });
  const exact = h("input", { type: "number", min: 0, step: "0.01", "aria-label": "bits per weight", onchange: () => Number(exact.value) > 0 && move((Number(exact.value) * table.weights) / 8) });
  const engines = h("select", { "aria-label": "engine", onchange: () => choose(engines.value) }, [["", "any engine"], ...preflight.engines.map((known) => [known.name, known.title])].map(([value, words]) => h("option", { value }, words)));
  const start = h("a", { class: "button primary" }, "Start a plan job");

  put(root,
    h("div", { class: "head" }, h("div", {}, h(source.within ? "h2" : "h1", {}, source.within ? "The whole frontier" : table.model.ref), h("p", { class: "muted" }, `${plural(table.units.length, "unit")} × ${plural(table.formats.length, "format")} · ${table.metric} · ${table.loss_unit}`)),
      h("div", { class: "row" }, source.prove && h("button", { type: "button", onclick: prove }, "Prove this plan"), source.start && start)),
    card("Drag the budget", chartHolder, key([["curve", "best plan for every budget"], ["uniform", "uniform plan"], ["knee", "knee: the most gain for its bytes"], ["here", "your budget"]]),
      h("div", { class: "budget" }, slider, h("label", {}, exact, "bits/weight")), readout.element,
      h("div", { class: "row note-line" }, h("label", { class: "check" }, "Engine", engines), kinds.map((kind) => h("label", { class: "check" }, h("input", { type: "checkbox", "data-tie": kind, checked: tied.has(kind), onchange: (event) => { if (event.target.checked) tied.add(kind); else tied.delete(kind); rebuild(); } }), TIES[kind]))), told),
    proof,
    card("The plan at this budget", map.element),
    h("div", { class: "cards" }, card("Preflight: what loads it", lights.element), card("Bytes by role", roles.element)));

  function choose(name) {
    engine = name;
    const ties = preflight.engines.find((known) => known.name === name)?.ties ?? [];
    for (const kind of ties) if (kinds.includes(kind)) tied.add(kind);
    for (const box of root.querySelectorAll("[data-tie]")) { box.checked = tied.has(box.dataset.tie); box.disabled = ties.includes(box.dataset.tie); }
    rebuild();
  }

  function rebuild() {
    const group = tieGroups(table, [...tied]);
    told.textContent = "";
    try {
      allocator = new Allocator(table, [], { group, allowed: engine ? preflight.allowed(engine) : undefined });
    } catch {
      told.textContent = `${preflight.engines.find((known) => known.name === engine).title} keeps units unquantized that this table gives no such format; a plan job for it works that out.`;
      engine = "";
      allocator = new Allocator(table, [], { group });
    }
    engines.value = engine;
    chart = frontierChart({ points: allocator.points(), uniform: allocator.uniform, knee: allocator.knee, weights: table.weights, lossUnit: table.loss_unit, width: Math.max(320, chartHolder.clientWidth || 900), onbudget: move });
    put(chartHolder, chart.element);
    move(budget ?? (Number(source.bytes) || allocator.knee.bytes));
  }

  function move(value) {
    budget = Math.round(Math.min(allocator.most, Math.max(allocator.least, value)));
    if (pending === null) pending = requestAnimationFrame(() => { pending = null; follow(); });
  }

  function follow() {
    const begun = performance.now();
    const plan = allocator.at(budget);
    chart.move(budget, plan.loss);
    slider.value = Math.round(STEPS * chart.share(budget));
    slider.setAttribute("aria-valuetext", `${bytes(budget)}, ${number((8 * budget) / table.weights)} bits a weight, predicted loss ${number(plan.loss)}`);
    if (document.activeElement !== exact) exact.value = ((8 * budget) / table.weights).toFixed(3);
    const at = (i) => i * data.k + plan.choice[i];
    map.show({ names: table.formats, choice: plan.choice, bytes: (i) => data.cost[at(i)], loss: (i) => data.loss[at(i)], stderr: (i) => data.stderr[at(i)] });
    roles.show(plan.choice);
    lights.show(plan.choice);
    readout.show(table, allocator, plan);
    clearTimeout(resting); // browsers refuse an address that changes with each frame
    resting = setTimeout(remember, 150);
    put(proof);
    root.dataset.budget = budget;
    root.dataset.milliseconds = (performance.now() - begun).toFixed(2);
  }

  function remember() {
    source.moved?.({ bytes: budget, ties: [...tied].join(), engine });
    if (source.start) start.href = source.start({ bytes: budget, engine });
  }

  async function prove() {
    put(proof, h("p", { class: "muted" }, "Solving on the server …"));
    try {
      const solution = await source.prove({ ties: [...tied], bytes: budget, engine });
      put(proof, certificateCard(solution.certificate), h("p", { class: "note-line" }, `Solver ${solution.solver}, within ${count(budget)} bytes${engine ? `, over what ${preflight.engines.find((known) => known.name === engine).title} loads` : ""}.`));
    } catch (error) { put(proof, problem(error)); }
  }

  if (engine) choose(engine); else rebuild();
  remember();
  return () => clearTimeout(resting);
}

// The numbers beside the curve. Elements are made once; a drag changes their words.
class Readout {
  constructor() {
    this.cells = ["planned units", "with the rest", "predicted loss", "no plan is better than", "0.1 bit more a weight", "next uniform plan"].map((name) => {
      const value = h("div", { class: "value" }), note = h("div", { class: "small muted" });
      return { value, note, element: h("div", {}, h("div", { class: "name" }, name), value, note) };
    });
    this.element = h("div", { class: "readout" }, this.cells.map((cell) => cell.element));
  }

  show(table, allocator, plan) {
    const rest = table.coverage.unquantized_bytes, uniform = allocator.uniformAbove(plan.bytes);
    const more = plan.bytes + table.weights / 80, better = allocator.bound(Math.min(more, allocator.most));
    const set = [
      [bytes(plan.bytes), `${number((8 * plan.bytes) / table.weights, 4)} bits a weight`],
      [bytes(plan.bytes + rest), `${bytes(rest)} stays as it is`],
      [number(plan.loss), table.loss_unit],
      [number(plan.bound), `gap ${plan.gap <= 1e-12 * plan.loss ? "0" : percent(plan.gap / plan.loss, 3)}`],
      plan.loss > 0 ? [`−${percent(Math.max(0, 1 - better / plan.loss), 1)} loss`, `${number(plan.multiplier)} of loss a byte here`] : ["–", ""],
      uniform ? [plan.loss > 0 ? `${number(uniform.loss / plan.loss)} × the loss` : "–", `${uniform.name}, ${percent(uniform.bytes / plan.bytes - 1, 1)} more bytes`] : ["–", "none has as many bytes"],
    ];
    set.forEach(([value, note], i) => { this.cells[i].value.textContent = value; this.cells[i].note.textContent = note; });
  }
}
