// One job: progress, result, error with what to do, timeline.

import { call, get, post, watch } from "./api.js";
import { card, facts, h, put, table } from "./dom.js";
import { bytes, count, duration, number, percent, time } from "./format.js";
import { about, code, problem, progressBar, state, tile } from "./parts.js";

export async function jobView(root, { parts: [id] }) {
  const job = await get(`/v1/jobs/${encodeURIComponent(id)}`);
  const events = [];
  const body = h("div", {});
  const timeline = h("ol", { class: "timeline" });
  put(root, body, card("Timeline", timeline));
  let current = job;

  const draw = () => put(body, page(current));
  const note = (event) => {
    if (!event || events.some((known) => known.id === event.id)) return;
    events.push(event);
    put(timeline, story(events).map(line));
    timeline.scrollTop = timeline.scrollHeight;
  };
  const stop = watch(id, (found, event) => {
    note(event);
    if (found) current = found;
    else if (event?.type === "progress" && !current.done) current = { ...current, state: "running", progress: { ...current.progress, ...event.data } };
    draw();
  }, (error) => put(body, problem(error)));
  draw();
  if (job.done) replay(id, note);
  return stop;
}

// All events of a job that has ended, read once from its stream.
async function replay(id, note) {
  const answer = await call(`/v1/jobs/${encodeURIComponent(id)}/events`);
  for (const block of (await answer.text()).split("\n\n")) {
    const data = block.split("\n").find((row) => row.startsWith("data: "));
    if (data) note(JSON.parse(data.slice(6)));
  }
}

// Progress events of one stage are told once, by the last of them.
const story = (events) => events.filter((event, i) => event.type !== "progress" || events[i + 1]?.type !== "progress" || events[i + 1].data.stage !== event.data.stage);

function line(event) {
  const data = event.data ?? {};
  const words = event.type === "progress" ? `${percent(data.fraction ?? 0)} ${data.message ?? ""}` : data.error ? data.error.detail : data.reason ?? (data.attempt ? `attempt ${data.attempt}` : data.queue ? `queue ${data.queue}` : "");
  return h("li", {}, h("time", { datetime: event.at }, new Date(event.at).toLocaleTimeString("en-GB")), h("span", {}, event.type === "progress" ? data.stage : event.type), h("span", { class: "muted" }, words));
}

function page(job) {
  const { title, note } = about(job);
  const again = async () => { location.hash = `#/jobs/${(await post("/v1/jobs", job.request)).id}`; };
  const cancel = async (event) => { event.target.disabled = true; await call(`/v1/jobs/${job.id}:cancel`, { method: "POST" }); };
  return [
    h("div", { class: "head" },
      h("div", {}, h("h1", {}, title), h("p", { class: "muted" }, `${job.kind}${note ? ` · ${note}` : ""}`)),
      h("div", { class: "row" }, state(job), job.done ? h("button", { type: "button", onclick: again }, "Run again") : h("button", { type: "button", disabled: job.cancelling, onclick: cancel }, job.cancelling ? "Cancelling …" : "Cancel"))),
    !job.done && card("Progress", progressBar(job.progress.fraction, "progress"),
      h("p", { class: "note-line" }, job.state === "queued" ? "Waiting for a worker." : [percent(job.progress.fraction), job.progress.stage || "starting", job.progress.message].filter(Boolean).join(" · ") + remaining(job))),
    job.error && problem({ document: job.error }),
    job.result && outcome(job),
    h("div", { class: "cards" },
      card("Request", facts(Object.entries(job.request).filter(([key]) => key !== "plan").map(([key, value]) => [key, Array.isArray(value) ? value.join(", ") : String(value)]))),
      card("Life", facts([["id", h("code", {}, job.id)], ["created", time(job.created_at)], ["started", job.started_at && time(job.started_at)], ["ended", job.finished_at && time(job.finished_at)],
        ["took", job.finished_at && job.started_at && duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000)], ["attempt", job.attempt || null], ["deadline", job.deadline && time(job.deadline)]]))),
  ];
}

// Only once a fifth is done is the pace worth believing.
function remaining(job) {
  const done = job.progress.fraction;
  if (done < 0.2 || !job.started_at) return "";
  const spent = (Date.now() - new Date(job.started_at)) / 1000;
  return ` · about ${duration((spent * (1 - done)) / done)} left`;
}

function outcome(job) {
  const result = job.result;
  if (result.infeasible) return card("No plan fits this budget", h("p", {}, result.infeasible.hint ?? result.infeasible.detail), result.table_digest && h("a", { href: `#/frontier/${result.table_digest}` }, "See every budget that can be met"));
  const links = h("div", { class: "row" },
    result.plan_digest && h("a", { class: "button primary", href: `#/plans/${result.plan_digest}` }, "Open the plan"),
    result.table_digest && h("a", { class: "button", href: `#/frontier/${result.table_digest}` }, "Open the frontier"));
  if (result.plan) {
    const { totals, measured } = result.plan;
    return card("Result", h("div", { class: "tiles" },
      tile("bits per weight", number(totals.bits_per_weight)), tile("planned units", bytes(totals.bytes)), tile("predicted loss", number(totals.predicted_loss), result.plan.provenance.loss_unit),
      measured && tile("measured loss", number(measured.kl), `± ${number(1.96 * measured.stderr, 2)} (95 %), ${measured.unit}`)),
      links, result.checkpoint && h("p", { class: "note-line" }, "Checkpoint: ", h("code", {}, result.checkpoint.path ?? JSON.stringify(result.checkpoint))));
  }
  if (result.inventory) return inventory(result.inventory);
  return card("Result", links, code(JSON.stringify(result, null, 1), "JSON"));
}

function inventory(found) {
  const rows = new Map();
  for (const unit of found.units) {
    const row = rows.get(unit.module) ?? { module: unit.module, units: 0, weights: 0, shape: unit.shape };
    row.units += 1;
    row.weights += unit.shape.reduce((a, b) => a * b, 1);
    rows.set(unit.module, row);
  }
  const cover = found.coverage;
  return [
    card("What can be planned", h("div", { class: "tiles" }, tile("units", count(found.units.length)), tile("weights", count(found.weights)), tile("planned share", percent(cover.planned_share, 1)), tile("stored", bytes(cover.stored_bytes))),
      table([{ title: "module", cell: (r) => r.module }, { title: "units", number: true, cell: (r) => count(r.units) }, { title: "shape", number: true, cell: (r) => r.shape.join(" × ") }, { title: "weights", number: true, cell: (r) => count(r.weights) }], [...rows.values()], { label: "modules" })),
    card("What stays as it is", table([{ title: "role", cell: (r) => r.role }, { title: "why", cell: (r) => r.reason }, { title: "tensors", number: true, cell: (r) => count(r.tensors) }, { title: "bytes", number: true, cell: (r) => bytes(r.bytes) }], cover.unquantized, { label: "unquantized" }),
      found.warnings.map((text) => h("p", { class: "note-line" }, text))),
  ];
}

