// One job: progress by stage, result, error with what to do, attempts and workers.

import { call, get, post, watch } from "./api.js";
import { card, facts, h, put } from "./dom.js";
import { bytes, duration, number, percent, time } from "./format.js";
import { inventoryCards } from "./inventory.js";
import { about, code, problem, progressBar, state, tile } from "./parts.js";
import { drawAttempts, drawLog, stageLeft } from "./story.js";

export async function jobView(root, { parts: [id] }) {
  const job = await get(`/v1/jobs/${encodeURIComponent(id)}`);
  const events = [], seen = new Set();
  const body = h("div", {}), tries = h("div", {}), log = h("ol", { class: "timeline", tabindex: "0", "aria-label": "events" });
  put(root, body, card("Attempts and workers", tries), card("Every event", log));
  let current = job, usual = null, gone = false;

  const draw = () => { if (!gone) put(body, page(current, events, usual)); };
  const note = (event) => {
    if (!event || seen.has(event.id)) return;
    seen.add(event.id);
    events.push(event);
    drawAttempts(tries, events);
    drawLog(log, events);
  };
  const stop = watch(id, (found, event) => {
    note(event);
    if (found) { current = found; if (found.done) replay(id, note).catch((error) => { if (!gone) log.append(h("li", { class: "muted" }, `The events could not all be read: ${error.message}`)); }); }
    else if (event?.type === "progress" && !current.done) current = { ...current, state: "running", progress: { ...current.progress, ...event.data } };
    draw();
  }, (error) => { gone = true; put(body, error.status === 404 ? removed(error) : problem(error, () => location.reload())); });
  draw();
  if (!job.done) usualSeconds(job).then((found) => { usual = found; draw(); }, () => null); // a hint; the job itself is what matters
  const ticking = setInterval(() => { if (current.done) clearInterval(ticking); else draw(); }, 5000);
  return () => { gone = true; clearInterval(ticking); stop(); };
}

const removed = (error) => h("div", {}, problem(error), h("p", {}, "The job was removed while this page showed it. What it stored may still be there: ", h("a", { href: "#/jobs" }, "see the jobs that are left"), "."));

// All events of a job that has ended, read once from its stream.
async function replay(id, note) {
  const answer = await call(`/v1/jobs/${encodeURIComponent(id)}/events`);
  for (const block of (await answer.text()).split("\n\n")) {
    const data = block.split("\n").find((row) => row.startsWith("data: "));
    if (data) note(JSON.parse(data.slice(6)));
  }
}

// How long the last job of this kind and model took, where there is one.
async function usualSeconds(job) {
  const { jobs } = await get(`/v1/jobs?kind=${job.kind}&state=succeeded&page_size=100`);
  const last = jobs.find((other) => other.request.model === job.request.model && other.started_at && other.finished_at);
  return last ? (new Date(last.finished_at) - new Date(last.started_at)) / 1000 : null;
}

function page(job, events, usual) {
  const { title, note } = about(job);
  const again = async () => { location.hash = `#/jobs/${(await post("/v1/jobs", job.request)).id}`; };
  const cancel = async (event) => { event.target.disabled = true; await call(`/v1/jobs/${job.id}:cancel`, { method: "POST" }); };
  const label = job.state === "failed" || job.state === "cancelled" ? "Try again" : "Run again";
  return [
    h("div", { class: "head" },
      h("div", {}, h("h1", {}, title), h("p", { class: "muted" }, `${job.kind}${note ? ` · ${note}` : ""}`)),
      h("div", { class: "row" }, state(job), job.done ? h("button", { type: "button", onclick: again }, label) : h("button", { type: "button", disabled: job.cancelling, onclick: cancel }, job.cancelling ? "Cancelling …" : "Cancel"))),
    !job.done && card("Progress", progressBar(job.progress.fraction, `progress of the stage ${job.progress.stage || "starting"}`),
      h("p", { class: "note-line", role: "status" }, job.state === "queued" ? "Waiting for a worker." : [percent(job.progress.fraction), job.progress.stage || "starting", job.progress.message].filter(Boolean).join(" · ")),
      job.state === "running" && h("p", { class: "note-line" }, estimate(job, events, usual))),
    job.error && problem({ document: job.error }),
    job.result && outcome(job),
    h("div", { class: "cards" },
      card("Request", facts(Object.entries(job.request).filter(([key]) => key !== "plan").map(([key, value]) => [key, Array.isArray(value) ? value.join(", ") : String(value)]))),
      card("Life", facts([["id", h("code", {}, job.id)], ["created", time(job.created_at)], ["started", job.started_at && time(job.started_at)], ["ended", job.finished_at && time(job.finished_at)],
        ["took", job.finished_at && job.started_at && duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000)], ["attempt", job.attempt || null], ["steps left", job.steps && `${job.steps.left} of ${job.steps.total}`], ["deadline", job.deadline && time(job.deadline)]]))),
  ];
}

// What can be said honestly: this stage by its own pace, the whole by the last job of its kind. Stages differ too much
// in length for one bar to promise an end.
function estimate(job, events, usual) {
  const left = stageLeft(events), spent = job.started_at ? (Date.now() - new Date(job.started_at)) / 1000 : 0;
  const whole = usual === null ? "No job of this kind on this model has ended here, so the whole cannot be told." : `The last ${job.kind} of this model took ${duration(usual)}; this one has run for ${duration(spent)}.`;
  return [left === null ? "" : `About ${duration(left)} left in this stage.`, whole].filter(Boolean).join(" ");
}

function outcome(job) {
  const result = job.result;
  if (result.infeasible) return card("No plan fits this budget", h("p", {}, result.infeasible.hint ?? result.infeasible.detail), result.table_digest ? h("a", { href: `#/frontier/${result.table_digest}` }, "See every budget that can be met")
    : h("p", { class: "muted" }, "It was refused before anything was scored, so there is no frontier to look at yet: a plan within the limit above makes one."));
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
  if (result.inventory) return inventoryCards(result.inventory);
  return card("Result", links, code(JSON.stringify(result, null, 1), "JSON"));
}
