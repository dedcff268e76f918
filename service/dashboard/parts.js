// Parts that several views share: errors, states, progress, code to copy.

import { h, put } from "./dom.js";
import { percent } from "./format.js";
import { reconsider } from "./key.js";

export function problem(error, retry) {
  const found = error.document ?? { detail: error.message };
  if (!error.document) console.error(error);
  return h("div", { class: "problem", role: "alert" },
    h("h2", {}, found.title ?? "Something went wrong"),
    h("p", {}, found.detail),
    found.expected && h("p", { class: "small" }, "Expected: ", found.expected),
    found.got && h("p", { class: "small" }, "Got: ", h("code", {}, found.got)),
    found.hint && h("p", {}, "What to do: ", found.hint),
    found.instance && h("p", { class: "small muted" }, found.instance),
    (retry || error.status === 401) && h("button", { type: "button", onclick: () => { reconsider(); (retry ?? (() => location.reload()))(); } }, error.status === 401 ? "Enter a key" : "Try again"));
}

export const state = (job) => h("span", { class: `state ${job.state}` }, job.cancelling ? "cancelling" : job.state);

export function progressBar(fraction, label) {
  const share = percent(Math.min(1, Math.max(0, fraction)));
  return h("div", { class: "bar", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * fraction) },
    h("i", { vars: { "--share": share.replace(" ", "") } }));
}

// whole: what is copied, where only the beginning is shown.
export function code(text, label, whole = text) {
  const button = h("button", { type: "button", onclick: async () => {
    try { await navigator.clipboard.writeText(whole); button.textContent = "Copied"; } catch { button.textContent = "Select and copy"; }
    setTimeout(() => put(button, "Copy"), 1500);
  } }, "Copy");
  return h("div", { class: "code" }, h("div", { class: "row spread" }, h("span", { class: "small muted" }, label), button), h("pre", { tabindex: "0" }, text));
}

export const tile = (name, value, note) => h("div", { class: "tile" }, h("div", { class: "name" }, name), h("div", { class: "value" }, value), note && h("div", { class: "note" }, note));

// What a job is about, in a line.
export function about(job) {
  const request = job.request ?? {};
  return { title: request.model ?? job.kind, note: [request.budget, request.engine && `for ${request.engine}`, request.metric, request.to && `to ${request.to}`].filter(Boolean).join(" · ") };
}
