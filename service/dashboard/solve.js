// Solve an uploaded problem file on the server and see its certificate.

import { call, once } from "./api.js";
import { bitsOf, colour } from "./color.js";
import { card, download, facts, h, put, table } from "./dom.js";
import { count, number, plural } from "./format.js";
import { code, problem } from "./parts.js";
import { certificateCard } from "./certificate.js";

// Six units, four formats; the first two share a format.
const EXAMPLE = {
  unit_names: ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"], format_names: ["int2-g64", "int3-g64", "int4-g64", "int8-g64"],
  loss: [[0.9, 0.3, 0.08, 0.004], [0.5, 0.15, 0.04, 0.002], [1.6, 0.5, 0.14, 0.008], [0.7, 0.2, 0.06, 0.003], [0.4, 0.11, 0.03, 0.002], [2.1, 0.7, 0.2, 0.01]],
  cost_bytes: [[256, 384, 512, 1024], [256, 384, 512, 1024], [256, 384, 512, 1024], [256, 384, 512, 1024], [768, 1152, 1536, 3072], [768, 1152, 1536, 3072]],
  limit_bytes: 4352, tie: [0, 0, 1, 2, 3, 4],
};
// Units whose choices are listed by name.
const MOST_LISTED = 300;

export async function solveView(root) {
  const { solvers } = await once("/v1/solvers");
  const result = h("div", {});
  const file = h("input", { type: "file", id: "problem-file", accept: ".npz,.json" });
  const solver = h("select", { id: "solver" }, h("option", { value: "auto" }, "auto"), solvers.map((entry) => h("option", { value: entry.name, disabled: !entry.available }, `${entry.name}: ${entry.summary}`)));
  const limit = h("input", { id: "time-limit", type: "number", min: "0.1", max: "300", step: "0.1", value: "10" });
  const run = async (event) => {
    event.preventDefault();
    const chosen = file.files[0];
    if (!chosen) { file.focus(); return; }
    put(result, h("p", { class: "muted" }, "Solving …"));
    try {
      const data = await chosen.arrayBuffer();
      const json = new Uint8Array(data, 0, Math.min(1, data.byteLength))[0] === 0x7b;
      const answer = json
        ? await call("/v1/solve", { method: "POST", body: `{"solver":${JSON.stringify(solver.value)},"time_limit":${Number(limit.value)},"problem":${new TextDecoder().decode(data)}}`, type: "application/json; charset=utf-8" })
        : await call(`/v1/solve?solver=${encodeURIComponent(solver.value)}&time_limit=${Number(limit.value)}`, { method: "POST", body: data, type: "application/octet-stream" });
      put(result, shown(await answer.json(), json ? JSON.parse(new TextDecoder().decode(data)) : {}));
    } catch (error) { put(result, problem(error)); }
  };
  const example = () => {
    const data = new DataTransfer();
    data.items.add(new File([JSON.stringify(EXAMPLE, null, 1)], "example.json", { type: "application/json" }));
    file.files = data.files;
    file.form.requestSubmit();
  };
  put(root, h("div", { class: "head" }, h("div", {}, h("h1", {}, "Solve a problem file"), h("p", { class: "muted" }, "An .npz or .json problem: losses, costs, limits. Nothing is stored."))),
    card(null, h("form", { class: "form", onsubmit: run },
      h("div", { class: "field" }, h("label", { for: "problem-file" }, "Problem file"), file), h("div", { class: "field" }, h("label", { for: "solver" }, "Solver"), solver), h("div", { class: "field" }, h("label", { for: "time-limit" }, "Time limit (seconds)"), limit),
      h("div", { class: "wide" }, h("div", { class: "row" }, h("button", { class: "primary" }, "Solve"), h("button", { type: "button", onclick: example }, "Try an example"))))),
    result);
  put(result, h("div", { class: "empty" }, h("h2", {}, "A problem in, a plan with its proof out"), h("p", {}, "Loss and cost of every unit in every format, and the limits: the same files that ", h("code", {}, "bitwright solve"), " reads.")));
}

// problem: what was uploaded as JSON, for its names.
function shown(solution, { unit_names: units, format_names: names } = {}) {
  const format = (j) => names?.[j] ?? `format ${j}`;
  const formats = new Map();
  for (const j of solution.choice) formats.set(j, (formats.get(j) ?? 0) + 1);
  return [certificateCard(solution.certificate),
    card("Solution", facts([["solver", solution.solver], ["loss", number(solution.loss, 8)], ["units", count(solution.choice.length)], ["choices", [...formats].sort((a, b) => a[0] - b[0]).map(([j, n]) => `${format(j)}: ${plural(n, "unit")}`).join(", ")], ["how", solution.info?.auto?.why]]),
      units?.length === solution.choice.length && units.length <= MOST_LISTED && table([{ title: "unit", cell: ([name]) => h("span", { class: "mono" }, String(name)) }, { title: "format", cell: ([, j]) => [h("span", { class: "swatch", vars: { "--tone": colour(bitsOf(format(j))) } }), format(j)] }], units.map((name, i) => [name, solution.choice[i]]), { label: "choices" }),
      h("p", {}, h("button", { type: "button", onclick: () => download("solution.json", JSON.stringify(solution), "application/json") }, "Download solution.json")), h("details", {}, h("summary", {}, "As JSON"), code(JSON.stringify(solution, null, 1).slice(0, 20000), "solution")))];
}
