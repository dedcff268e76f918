// Solve an uploaded problem file on the server and see its certificate.

import { call, once } from "./api.js";
import { card, download, facts, h, put } from "./dom.js";
import { count, number, plural } from "./format.js";
import { code, problem } from "./parts.js";
import { certificateCard } from "./certificate.js";

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
      put(result, shown(await answer.json()));
    } catch (error) { put(result, problem(error)); }
  };
  put(root, h("div", { class: "head" }, h("div", {}, h("h1", {}, "Solve a problem file"), h("p", { class: "muted" }, "An .npz or .json problem: losses, costs, limits. Nothing is stored."))),
    card(null, h("form", { class: "form", onsubmit: run },
      h("div", { class: "field" }, h("label", { for: "problem-file" }, "Problem file"), file), h("div", { class: "field" }, h("label", { for: "solver" }, "Solver"), solver), h("div", { class: "field" }, h("label", { for: "time-limit" }, "Time limit (seconds)"), limit),
      h("div", { class: "wide" }, h("button", { class: "primary" }, "Solve")))),
    result);
}

function shown(solution) {
  const formats = new Map();
  for (const j of solution.choice) formats.set(j, (formats.get(j) ?? 0) + 1);
  return [certificateCard(solution.certificate),
    card("Solution", facts([["solver", solution.solver], ["loss", number(solution.loss, 8)], ["units", count(solution.choice.length)], ["choices", [...formats].sort((a, b) => a[0] - b[0]).map(([j, n]) => `format ${j}: ${plural(n, "unit")}`).join(", ")], ["how", solution.info?.auto?.why]]),
      h("p", {}, h("button", { type: "button", onclick: () => download("solution.json", JSON.stringify(solution), "application/json") }, "Download solution.json")), h("details", {}, h("summary", {}, "As JSON"), code(JSON.stringify(solution, null, 1).slice(0, 20000), "solution")))];
}
