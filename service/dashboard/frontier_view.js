// The frontier of a sensitivity table: drag the budget, and plan, bytes and proof follow.

import { Allocator } from "./allocate.js";
import { once, post } from "./api.js";
import { frontierChart, key } from "./charts.js";
import { card, h, put } from "./dom.js";
import { bytes, count, number, percent, plural } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { problem } from "./parts.js";
import { certificateCard } from "./plan.js";

const KINDS = { qkv: "q, k and v together", gate_up: "gate and up together", expert: "each expert as one", expert_role: "one role of all experts together", experts: "all experts of a layer together" };

export async function frontierView(root, { parts: [digest], query }) {
  const table = await once(`/v1/sensitivities/${encodeURIComponent(digest)}`);
  const kinds = Object.keys(KINDS).filter((kind) => table.units.some((unit) => unit.families?.[kind] !== undefined));
  const tied = new Set((query.get("ties") ?? "").split(",").filter((kind) => kinds.includes(kind)));
  const map = new HeatMap(table.units);
  const chartHolder = h("div", {}), readout = h("div", { class: "readout", "aria-live": "polite" }), proof = h("div", {});
  const slider = h("input", { type: "range", min: 0, max: 1000, step: 1, "aria-label": "budget", oninput: () => move(allocator.least + (slider.value / 1000) * (allocator.most - allocator.least)) });
  let allocator, chart, budget, pending = null, resting = null;

  put(root,
    h("div", { class: "head" }, h("div", {}, h("h1", {}, table.model.ref), h("p", { class: "muted" }, `${plural(table.units.length, "unit")} × ${plural(table.formats.length, "format")} · ${table.metric} · ${table.loss_unit}`)),
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => prove() }, "Prove this plan"), h("a", { class: "button primary", id: "start" }, "Start a plan job"))),
    card("Drag the budget", chartHolder, slider, readout, key([["curve", "best plan for every budget"], ["uniform", "uniform plan"], ["knee", "knee"], ["here", "your budget"]]),
      kinds.length > 0 && h("div", { class: "row note-line" }, "Ties: ", kinds.map((kind) => h("label", { class: "check" }, h("input", { type: "checkbox", checked: tied.has(kind), onchange: (event) => { if (event.target.checked) tied.add(kind); else tied.delete(kind); rebuild(); } }), KINDS[kind])))),
    proof,
    card("The plan at this budget", map.element));

  function rebuild() {
    allocator = new Allocator(table, [...tied]);
    chart = frontierChart({ points: allocator.points(), uniform: allocator.uniform, knee: allocator.knee, weights: table.weights, lossUnit: table.loss_unit, width: Math.max(320, chartHolder.clientWidth || 900), onbudget: move });
    put(chartHolder, chart.element);
    move(budget ?? (Number(query.get("bytes")) || allocator.knee.bytes));
  }

  function move(value) {
    budget = Math.round(Math.min(allocator.most, Math.max(allocator.least, value)));
    if (pending === null) pending = requestAnimationFrame(() => { pending = null; follow(); });
  }

  function follow() {
    const begun = performance.now();
    const plan = allocator.at(budget);
    chart.move(budget, plan.loss);
    slider.value = Math.round((1000 * (budget - allocator.least)) / (allocator.most - allocator.least || 1));
    slider.setAttribute("aria-valuetext", bytes(budget));
    map.show((i) => ({ format: table.formats[plan.choice[i]], bytes: table.cost_bytes[i][plan.choice[i]], loss: table.loss[i][plan.choice[i]], stderr: table.stderr[i][plan.choice[i]] }));
    const rest = table.coverage.unquantized_bytes, uniform = allocator.uniformAbove(plan.bytes);
    const entry = (name, value, note) => h("div", {}, h("div", { class: "name" }, name), h("div", { class: "value" }, value), note && h("div", { class: "small muted" }, note));
    put(readout,
      entry("planned units", bytes(plan.bytes), `${number((8 * plan.bytes) / table.weights, 4)} bits a weight`), entry("with the rest", bytes(plan.bytes + rest), `${bytes(rest)} stays as it is`),
      entry("predicted loss", number(plan.loss), table.loss_unit), entry("no plan is better than", number(plan.bound), `gap ${plan.gap <= 1e-12 * plan.loss ? "0" : percent(plan.gap / plan.loss, 3)}`),
      entry("next byte saves", number(plan.multiplier), "of loss"), uniform && entry("next uniform plan", `${number(uniform.loss / plan.loss)} × the loss`, `${uniform.name}, ${percent(uniform.bytes / plan.bytes - 1, 1)} more bytes`));
    clearTimeout(resting); // browsers refuse an address that changes with each frame
    resting = setTimeout(() => history.replaceState(null, "", `#/frontier/${digest}?bytes=${budget}${tied.size ? `&ties=${[...tied].join(",")}` : ""}`), 150);
    document.getElementById("start").href = `#/new?model=${encodeURIComponent(table.model.ref)}&budget=${((8 * budget) / table.weights).toFixed(4)}&unit=bpw&metric=${encodeURIComponent(table.metric)}`;
    put(proof);
    root.dataset.budget = budget;
    root.dataset.milliseconds = (performance.now() - begun).toFixed(2);
  }

  async function prove() {
    put(proof, h("p", { class: "muted" }, "Solving on the server …"));
    try {
      const solution = await post("/v1/solve", { table: digest, ties: [...tied], limits: { bytes: budget } });
      put(proof, certificateCard(solution.certificate), h("p", { class: "note-line" }, `Solver ${solution.solver}, budget ${count(budget)} bytes.`));
    } catch (error) { put(proof, problem(error)); }
  }

  rebuild();
  return () => clearTimeout(resting);
}
