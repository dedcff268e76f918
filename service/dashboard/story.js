// The life of a job from its events: its attempts with their workers, and the stages of each with their times.

import { h, put } from "./dom.js";
import { duration, percent } from "./format.js";

const STAGES = { inspect: "read the model", calibrate: "prepare the calibration data", quantize: "quantize every format", score: "score the sensitivities", solve: "choose the formats", measure: "measure on held-out data", execute: "write the checkpoint", verify: "read it back" };

// [{attempt, worker, begun, ended, how, stages: [{name, begun, ended, fraction, message}]}], in order.
export function attempts(events) {
  const found = [];
  for (const event of events) {
    const at = new Date(event.at), data = event.data ?? {};
    if (event.type === "started") { found.push({ attempt: data.attempt, worker: data.worker, begun: at, ended: null, how: "", stages: [] }); continue; }
    const now = found[found.length - 1];
    if (!now) continue;
    const stage = now.stages[now.stages.length - 1];
    if (event.type === "progress") {
      if (stage?.name === data.stage) Object.assign(stage, { fraction: data.fraction, message: data.message, last: at });
      else {
        // What comes between the last word of a stage that is done and the first of the next is the next one's work.
        const begun = stage?.fraction >= 1 ? stage.last : at;
        if (stage) stage.ended = begun;
        now.stages.push({ name: data.stage, begun, last: at, ended: null, fraction: data.fraction, message: data.message });
      }
    } else if (["requeued", "succeeded", "failed", "cancelled"].includes(event.type)) {
      Object.assign(now, { ended: at, how: event.type === "requeued" ? `handed back: ${data.reason ?? ""}` : event.type });
      if (stage) stage.ended = at;
    }
  }
  return found;
}

// Seconds that the stage of now will still take, by its own pace; null while too little of it is done to tell.
export function stageLeft(events, now = Date.now()) {
  const current = attempts(events).at(-1), stage = current?.stages.at(-1);
  if (!stage || current.ended || !(stage.fraction >= 0.1 && stage.fraction < 1)) return null;
  const spent = (stage.last - stage.begun) / 1000;
  if (spent < 1) return null;
  return Math.max(0, (spent * (1 - stage.fraction)) / stage.fraction - (now - stage.last) / 1000);
}

const seconds = (from, to) => ((to ?? new Date()) - from) / 1000;

// One list a try: its worker and its stages, the running one with a bar.
export function drawAttempts(element, events) {
  return put(element, attempts(events).map((found) => h("section", { class: "attempt" },
    h("h3", {}, `Attempt ${found.attempt}`, h("span", { class: "muted" }, ` · ${found.worker ? `worker ${found.worker}` : "worker unknown"} · ${found.ended ? duration(seconds(found.begun, found.ended)) : "running"}${found.how ? ` · ${found.how}` : ""}`)),
    h("ol", { class: "stages" }, found.stages.map((stage) => h("li", { class: stage.ended ? "done" : "now" },
      h("span", { class: "dot", "aria-hidden": "true" }), h("span", {}, h("b", {}, stage.name), h("span", { class: "muted" }, STAGES[stage.name] ? ` ${STAGES[stage.name]}` : "")),
      h("span", { class: "number muted" }, stage.ended ? duration(seconds(stage.begun, stage.ended)) : percent(stage.fraction ?? 0)),
      stage.message && h("small", { class: "muted", title: stage.message }, stage.message)))))));
}

// Every event in a line; progress of one stage is told once, by the last of it.
export function drawLog(element, events) {
  const told = events.filter((event, i) => event.type !== "progress" || events[i + 1]?.type !== "progress" || events[i + 1].data.stage !== event.data.stage);
  put(element, told.map(line));
  element.scrollTop = element.scrollHeight;
}

function line(event) {
  const data = event.data ?? {};
  const words = event.type === "progress" ? `${percent(data.fraction ?? 0)} ${data.message ?? ""}` : data.error ? data.error.detail : data.reason ?? (data.attempt ? `attempt ${data.attempt}${data.worker ? `, worker ${data.worker}` : ""}` : data.queue ? `queue ${data.queue}` : data.steps ? `${data.steps} steps` : "");
  return h("li", {}, h("time", { datetime: event.at }, new Date(event.at).toLocaleTimeString("en-GB")), h("span", {}, event.type === "progress" ? data.stage : event.type), h("span", { class: "muted" }, words));
}
