// Start a job: a form whose request is shown as curl and as a command line while it is filled in.

import { get, once, Problem, post, call } from "./api.js";
import { card, h, put } from "./dom.js";
import { DeviceBudget } from "./device.js";
import { inventoryCards } from "./inventory.js";
import { code, problem } from "./parts.js";

// A budget that is what a device has left for the file.
const DEVICE = "device";
const DEFAULTS = { kind: "plan", model: "", budget: "4", unit: "bpw", engine: "", metric: "", recipe: "auto", to: "", formats: "", calibration: "", confirm: true };

export async function newView(root, { query }) {
  const [metrics, engines, recipes, jobs, listed] = await Promise.all([once("/v1/metrics"), once("/v1/engines"), once("/v1/recipes"), get("/v1/jobs?page_size=100"), get("/v1/models")]);
  const values = { ...DEFAULTS, ...Object.fromEntries(query) };
  const models = [...new Set([...listed.models.map((model) => model.ref), ...jobs.jobs.map((job) => job.request.model).filter(Boolean)])];
  const shown = h("div", {}), failed = h("div", {}), inside = h("div", { "aria-live": "polite" }), wrong = new Map();
  const device = new DeviceBudget(() => preview());

  const field = (name, label, control, help, wide) => {
    const id = `field-${name}`;
    const helper = h("div", { class: "help", id: `${id}-help` }, help);
    const complaint = h("div", { class: "wrong", role: "alert" });
    wrong.set(name, { control, complaint });
    control.id = id;
    control.setAttribute("aria-describedby", `${id}-help`);
    return h("div", { class: `field ${wide ? "wide" : ""}` }, h("label", { for: id }, label), name === "budget" ? h("div", { class: "pair" }, control, unit) : control, helper, complaint);
  };
  const listen = (name) => ({ oninput: (event) => { values[name] = event.target.type === "checkbox" ? event.target.checked : event.target.value; clear(name); preview(); } });
  const clear = (name) => { const found = wrong.get(name); if (found) { found.complaint.textContent = ""; found.control.removeAttribute("aria-invalid"); } };
  const input = (name, extra) => h("input", { value: values[name], autocomplete: "off", spellcheck: "false", ...listen(name), ...extra });
  const choose = (name, options) => h("select", listen(name), options.map(([value, text]) => h("option", { value, selected: values[name] === value }, text)));
  const unit = h("select", { "aria-label": "unit of the budget", ...listen("unit") }, [["bpw", "bpw"], ["GiB", "GiB"], ["MiB", "MiB"], ["GB", "GB"], ["MB", "MB"], ["B", "B"], [DEVICE, "GiB on a device"]].map(([u, words]) => h("option", { value: u, selected: u === values.unit }, words)));
  const summary = (list, name) => list.find((entry) => entry.name === name)?.summary ?? "";
  const engineHelp = () => { const e = engines.engines.find((known) => known.name === values.engine); return e ? `${e.title}, ${e.version}${e.tie_kinds?.length ? `; ties ${e.tie_kinds.join(", ")}` : ""}.` : "Cuts the formats to what it loads and ties what it fuses."; };
  const containerHelp = () => summary(engines.containers, values.to) || "Quantizes and packs the model as the plan says, and reads it back.";
  const recipeHelp = () => summary(recipes.recipes, values.recipe);
  const metricHelp = () => summary(metrics.metrics, values.metric || "fisher");
  const upload = h("input", { type: "file", accept: ".txt,text/plain", "aria-label": "upload a text", onchange: async (event) => {
    const file = event.target.files[0];
    if (!file) return;
    try { values.calibration = (await (await call("/v1/texts", { method: "POST", body: await file.text(), type: "text/plain; charset=utf-8" })).json()).digest; clear("calibration"); } catch (error) { complain(error); }
    preview();
  } });

  const form = h("form", { class: "form", novalidate: true, onsubmit: submit },
    field("model", "Model", input("model", { list: "models", placeholder: "hf:org/name or file:ROOT/path", required: true }), "A hub repository, or a folder below one of this server's model roots.", true),
    h("datalist", { id: "models" }, models.map((value) => h("option", { value }))),
    h("div", { class: "wide row" }, h("button", { type: "button", onclick: look }, "Look inside"), h("span", { class: "help muted" }, models.length ? `${models.length} known here${listed.whole ? "" : " (more lie below the roots)"}` : "No model root is set: BITWRIGHT_MODEL_ROOTS=name=path")),
    field("budget", "Budget", input("budget", { inputmode: "decimal" }), "bpw: stored bits of the planned units over their weights. Bytes: the whole file."),
    field("engine", "Inference engine", choose("engine", [["", "any"], ...engines.engines.map((e) => [e.name, e.name])]), engineHelp()),
    field("metric", "Sensitivity metric", choose("metric", [["", "the recipe's own"], ...metrics.metrics.map((m) => [m.name, m.name])]), metricHelp()),
    field("recipe", "Recipe", choose("recipe", recipes.recipes.map((r) => [r.name, r.name])), recipeHelp()),
    field("to", "Write a checkpoint", choose("to", [["", "no, the plan alone"], ...engines.containers.map((c) => [c.name, c.name])]), containerHelp()),
    device.element,
    field("calibration", "Calibration text", upload, "UTF-8. Without one, the text that comes with bitwright is used."),
    field("formats", "Formats", input("formats", { placeholder: "int2-g64, int3-g64, int4-g64, int8-g64" }), "Empty: the engine's, or int2 to int8 at group 64."),
    h("label", { class: "check wide" }, h("input", { type: "checkbox", checked: values.confirm, ...listen("confirm") }), "Measure the plan and the uniform plan on held-out text"),
    h("div", { class: "wide row" }, h("button", { class: "primary" }, "Start the job"), h("button", { type: "button", onclick: check }, "Check only"), h("span", { role: "status", class: "muted", id: "checked" })));
  put(root, h("div", { class: "head" }, h("div", {}, h("h1", {}, "New job"), h("p", { class: "muted" }, "Given a model and a budget: how many bits should every part get?"))), card(null, form), failed, inside, card("The same request", shown));
  preview();

  function request() {
    const found = { kind: "plan", model: values.model.trim(), budget: values.unit === DEVICE ? device.words(values.budget.trim()) : `${values.budget.trim()}${values.unit}` };
    for (const name of ["engine", "metric", "to", "calibration"]) if (values[name]) found[name] = values[name];
    if (values.recipe && values.recipe !== "auto") found.recipe = values.recipe;
    const formats = values.formats.split(/[\s,]+/).filter(Boolean);
    if (formats.length) found.formats = formats;
    if (!values.confirm) found.confirm = false;
    return found;
  }

  function preview() {
    for (const [name, words] of [["metric", metricHelp], ["engine", engineHelp], ["recipe", recipeHelp], ["to", containerHelp]]) { const help = document.getElementById(`field-${name}-help`); if (help) help.textContent = words(); }
    device.show(values.unit === DEVICE);
    const asked = request();
    put(shown, code(curl(asked), "curl"), h("br"), code(line(asked), "command line"));
  }

  // The model's headers, read by a short job.
  async function look() {
    put(inside, h("p", { class: "muted" }, "Reading the headers …"));
    try {
      const job = await post("/v1/jobs", { kind: "inspect", model: values.model.trim() }, { headers: { Prefer: "wait=30" } });
      if (!job.done) return put(inside, h("p", {}, "The model is still being read: ", h("a", { href: `#/jobs/${job.id}` }, "watch the job"), "."));
      if (!job.result) throw new Problem(job.error ?? { detail: `the job was ${job.state}` }, 0);
      put(inside, inventoryCards(job.result.inventory));
    } catch (error) { put(inside); complain(error); }
  }

  function complain(error) {
    put(failed);
    const list = error instanceof Problem ? error.document.errors ?? [] : [];
    const placed = list.filter(({ pointer, message }) => {
      const found = wrong.get((pointer ?? "").split("/")[1]);
      if (found) { found.complaint.textContent = message; found.control.setAttribute("aria-invalid", "true"); }
      return found;
    });
    const type = (error.document?.type ?? "").split("/").pop();
    const guess = { "invalid-budget": "budget", "invalid-reference": "model" }[type];
    if (guess && !placed.length) {
      const found = wrong.get(guess);
      found.complaint.textContent = [error.document.detail, error.document.expected && `expected ${error.document.expected}`, error.document.hint].filter(Boolean).join("; ");
      found.control.setAttribute("aria-invalid", "true");
      found.control.focus();
    } else if (!placed.length) put(failed, problem(error));
    else placed[0] && wrong.get(placed[0].pointer.split("/")[1]).control.focus();
  }

  async function check() {
    const told = document.getElementById("checked");
    told.textContent = "";
    try { await post("/v1/jobs?validate_only=true", request()); put(failed); told.textContent = "The request is valid."; } catch (error) { complain(error); }
  }

  async function submit(event) {
    event.preventDefault();
    const button = form.querySelector("button.primary");
    button.disabled = true;
    try {
      const job = await post("/v1/jobs", request(), { headers: { "Idempotency-Key": `"${crypto.randomUUID?.() ?? Math.random().toString(36).slice(2)}"` } });
      location.hash = `#/jobs/${job.id}`;
    } catch (error) { complain(error); } finally { button.disabled = false; }
  }
}

const quote = (text) => (/^[A-Za-z0-9_.:/@=+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

export const curl = (request) => `curl -X POST ${location.origin}/v1/jobs \\\n  -H 'Content-Type: application/json' \\\n  -H 'Idempotency-Key: "'$(uuidgen)'"' \\\n  -d ${quote(JSON.stringify(request))}`;

export function line(request) {
  const parts = ["bitwright plan", quote(request.model || "MODEL"), "--budget", quote(request.budget)];
  for (const name of ["engine", "metric", "recipe", "to", "calibration"]) if (request[name]) parts.push(`--${name}`, quote(request[name]));
  if (request.formats) parts.push("--formats", request.formats.join(","));
  if (request.confirm === false) parts.push("--no-confirm");
  return [...parts, "--server", location.origin, "--out plan.json"].join(" ");
}
