// The frontier of a sensitivity table: drag the budget, and plan, bytes, engines and proof follow.

import { Allocator } from "./allocate.js";
import { frontierChart, key, margins } from "./frontier_chart.js";
import { bitsOf } from "./color.js";
import { card, h, put } from "./dom.js";
import { Chips, Lights, Preflight, TIES } from "./engines.js";
import { bytes, count, number, plural } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { certificateCard } from "./certificate.js";
import { problem } from "./parts.js";
import { Readout } from "./readout.js";
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
  const known = (name) => preflight.engines.find((one) => one.name === name);
  let engine = known(source.engine) ? source.engine : "";
  let allocator, chart, budget, pending = null, resting = null, wide = 0;

  const map = new HeatMap(table.units), roles = new RoleBar(table), lights = new Lights(preflight, { onchoose: choose }), chips = new Chips(preflight, choose);
  const chartHolder = h("div", { class: "plot" }), proof = h("div", {}), told = h("p", { class: "note-line", role: "status" });
  const readout = new Readout((bits) => move((bits * table.weights) / 8));
  const slider = h("input", { type: "range", class: "along", min: 0, max: STEPS, step: 1, "aria-label": "budget", oninput: () => move(chart.from(slider.value / STEPS)) });
  const start = h("a", { class: "button primary" }, "Start a plan job");
  const tieBoxes = kinds.map((kind) => h("label", { class: "check" }, h("input", { type: "checkbox", "data-tie": kind, checked: tied.has(kind), onchange: (event) => { if (event.target.checked) tied.add(kind); else tied.delete(kind); rebuild(); } }), TIES[kind]));

  put(root,
    h("div", { class: "head" }, h("div", {}, h(source.within ? "h2" : "h1", {}, source.within ? "The whole frontier" : table.model.ref), h("p", { class: "muted" }, `${plural(table.units.length, "unit")} × ${plural(table.formats.length, "format")} · ${table.metric} · ${table.loss_unit}`)),
      h("div", { class: "row" }, source.prove && h("button", { type: "button", onclick: prove }, "Prove this plan"), source.start && start)),
    h("section", { class: "card hero" },
      h("div", { class: "row spread" }, h("h2", {}, "Drag the budget"), key([["curve", "best plan for every budget"], ["uniform", "uniform plans, and the best that fits"], ["knee", "knee: the most gain for its bytes"]])),
      readout.element, chartHolder, slider,
      chips.element, kinds.length > 0 && h("div", { class: "row ties" }, h("span", { class: "muted small" }, "One format for"), tieBoxes), told),
    proof,
    card("The plan at this budget", map.element),
    card("Preflight: what loads it", h("div", { class: "broad" }, lights.element)), card("Bytes by role", h("div", { class: "broad" }, roles.element)));

  function choose(name) {
    engine = name;
    const ties = known(name)?.ties ?? [];
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
      told.textContent = `${known(engine).title} keeps units unquantized that this table gives no such format; a plan job for it works that out.`;
      engine = "";
      allocator = new Allocator(table, [], { group });
    }
    chips.choose(engine);
    draw();
    move(budget ?? (Number(source.bytes) || allocator.knee.bytes));
  }

  function draw() {
    wide = Math.max(300, chartHolder.clientWidth || 900);
    const edge = margins(wide);
    chart = frontierChart({ points: allocator.points(), uniform: allocator.uniform, knee: allocator.knee, mix: (budgets) => allocator.mix(budgets), formats: table.formats.map((name) => ({ name, bits: bitsOf(name) })), weights: table.weights, lossUnit: table.loss_unit, width: wide, onbudget: move });
    slider.style.setProperty("--left", `${edge.left}px`);
    slider.style.setProperty("--right", `${edge.right}px`);
    put(chartHolder, chart.element);
  }

  function move(value) {
    budget = Math.round(Math.min(allocator.most, Math.max(allocator.least, value)));
    if (pending === null) pending = requestAnimationFrame(() => { pending = null; follow(); });
  }

  function follow() {
    const begun = performance.now();
    const plan = allocator.at(budget), rival = allocator.uniformWithin(budget);
    chart.move(budget, plan.loss, rival);
    slider.value = Math.round(STEPS * chart.share(budget));
    slider.setAttribute("aria-valuetext", `${bytes(budget)}, ${number((8 * budget) / table.weights)} bits a weight, predicted loss ${number(plan.loss)}`);
    const at = (i) => i * data.k + plan.choice[i];
    map.show({ names: table.formats, choice: plan.choice, bytes: (i) => data.cost[at(i)], loss: (i) => data.loss[at(i)], stderr: (i) => data.stderr[at(i)] });
    roles.show(plan.choice);
    const found = preflight.judge(plan.choice);
    lights.show(found);
    chips.show(found);
    readout.show(table, allocator, plan, budget, rival);
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
      put(proof, certificateCard(solution.certificate), h("p", { class: "note-line" }, `Solver ${solution.solver}, within ${count(budget)} bytes${engine ? `, over what ${known(engine).title} loads` : ""}.`));
    } catch (error) { put(proof, problem(error)); }
  }

  if (engine) choose(engine); else rebuild();
  remember();
  // A window of another width gets a picture of its own.
  const sized = new ResizeObserver(() => { if (chartHolder.clientWidth && Math.abs(chartHolder.clientWidth - wide) > 2) { draw(); move(budget); } });
  sized.observe(chartHolder);
  return () => { clearTimeout(resting); sized.disconnect(); };
}
