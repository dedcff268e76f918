// The list of jobs: filters, search, live progress.

import { call, get } from "./api.js";
import { h, put } from "./dom.js";
import { ago, percent } from "./format.js";
import { about, problem, progressBar, state } from "./parts.js";

const STATES = ["queued", "running", "succeeded", "failed", "cancelled"];
// Pages of a search that are asked for in a row while none holds a job.
const MOST_EMPTY = 20;
const KINDS = ["plan", "sensitivity", "inspect", "execute", "evaluate", "import"];

export async function jobsView(root, { query }) {
  const filters = { state: query.get("state") ?? "", kind: query.get("kind") ?? "", search: query.get("q") ?? "" };
  const list = h("ul", { class: "jobs", "aria-live": "off" });
  const more = h("div", {}, h("p", { class: "muted" }, "Loading …"));
  let pages = 1, timer = null, gone = false;

  const select = (name, values, all) => h("select", { "aria-label": all, onchange: (event) => { filters[name] = event.target.value; keep(); again(); } },
    h("option", { value: "" }, all), values.map((value) => h("option", { value, selected: filters[name] === value }, value)));
  const search = h("input", { type: "search", placeholder: "Find by model, budget, engine, metric or id", maxlength: 200, "aria-label": "Find a job", value: filters.search, oninput: (event) => { filters.search = event.target.value; keep(); clearTimeout(timer); timer = setTimeout(again, 200); } });
  put(root,
    h("div", { class: "head" }, h("div", {}, h("h1", {}, "Jobs")), h("a", { class: "button primary", href: "#/new" }, "New job")),
    h("div", { class: "filters" }, search, select("state", STATES, "All states"), select("kind", KINDS, "All kinds")),
    h("section", { class: "card" }, list, more));

  const keep = () => {
    const found = new URLSearchParams(Object.entries({ state: filters.state, kind: filters.kind, q: filters.search }).filter(([, v]) => v));
    history.replaceState(null, "", `#/jobs${found.size ? `?${found}` : ""}`);
  };

  // Other filters: from the first page on. An answer to older filters that comes late is not shown.
  function again() {
    pages = 1;
    list.setAttribute("aria-busy", "true");
    refresh();
  }

  let jobs = [], token = "", last = "", drawn = 0, turn = 0;
  async function refresh() {
    clearTimeout(timer);
    const mine = ++turn;
    try {
      const found = [];
      let next = "";
      for (let page = 0; page < pages; page++) {
        const parameters = new URLSearchParams(Object.entries({ state: filters.state, kind: filters.kind, q: filters.search.trim(), page_token: next }).filter(([, v]) => v));
        const answer = await get(`/v1/jobs?${parameters}`);
        if (gone || mine !== turn) return;
        found.push(...answer.jobs);
        next = answer.next_page_token;
        if (!next) break;
        if (!found.length && pages < MOST_EMPTY) pages += 1; // the server looked at many jobs and none fits yet
      }
      list.removeAttribute("aria-busy");
      const told = JSON.stringify([found, next, filters]);
      const same = told === last && Date.now() - drawn < 30000; // what did not change is left alone: it may hold the focus
      [jobs, token, last] = [found, next, told];
      if (!same) draw();
    } catch (error) {
      if (gone || mine !== turn) return;
      list.removeAttribute("aria-busy");
      if (error.status !== 0 || !jobs.length) put(more, problem(error, refresh));
    }
    if (!gone) timer = setTimeout(refresh, jobs.some((job) => !job.done) ? 1000 : 4000);
  }

  function draw() {
    drawn = Date.now();
    const focused = document.activeElement?.dataset?.job;
    put(list, jobs.map((job) => row(job, refresh)));
    if (focused) list.querySelector(`[data-job="${CSS.escape(focused)}"]`)?.focus();
    put(more,
      !jobs.length && (filtered() ? h("div", { class: "empty" }, h("h2", {}, "No job fits these filters"), h("p", {}, token ? "None of the newest jobs fits; older ones were not looked at yet." : "Every job of yours was looked at."), h("button", { type: "button", onclick: clear }, "Show every job"))
        : h("div", { class: "empty" }, h("h2", {}, "No jobs yet"), h("p", {}, "Give a model and a budget; a plan with a certificate comes out. "), h("a", { class: "button primary", href: "#/new" }, "Start a job"))),
      token && h("button", { type: "button", onclick: () => { pages += 1; refresh(); } }, filters.search ? "Look further back" : "Show more"));
  }

  const filtered = () => filters.state || filters.kind || filters.search.trim();

  function clear() {
    Object.assign(filters, { state: "", kind: "", search: "" });
    for (const control of root.querySelectorAll(".filters > *")) control.value = "";
    keep();
    again();
    search.focus();
  }

  await refresh();
  return () => { gone = true; clearTimeout(timer); };
}

function row(job, refresh) {
  const { title, note } = about(job);
  const cancel = async (event) => {
    event.target.disabled = true;
    try { await call(`/v1/jobs/${job.id}:cancel`, { method: "POST" }); } finally { refresh(); }
  };
  return h("li", {},
    state(job),
    h("span", { class: "kind muted" }, job.kind),
    h("div", { class: "what" }, h("a", { href: `#/jobs/${job.id}`, title, "data-job": job.id }, title), h("small", {}, note || job.kind)),
    h("div", { class: "now" }, now(job)),
    h("div", { class: "when" }, job.done ? h("time", { datetime: job.created_at, title: job.created_at }, ago(job.created_at)) : h("button", { type: "button", "data-job": `cancel ${job.id}`, "aria-label": `Cancel the job for ${title}`, disabled: job.cancelling, onclick: cancel }, "Cancel")));
}

function now(job) {
  if (job.state === "running") {
    const told = job.progress;
    return [progressBar(told.fraction, `progress of ${job.id}`), h("small", { title: told.message }, `${percent(told.fraction)} ${told.stage} ${told.message}`)];
  }
  if (job.state === "failed") return h("small", { title: job.error?.detail }, job.error?.detail ?? "failed");
  if (job.state === "succeeded" && job.links.plan) return h("a", { href: `#/plans/${job.links.plan.split("/").pop()}` }, "Open the plan");
  if (job.state === "succeeded" && job.kind === "plan") return job.links.sensitivities ? h("a", { href: `#/frontier/${job.links.sensitivities.split("/").pop()}` }, "No plan fits the budget") : h("small", {}, "no plan fits the budget");
  return h("small", {}, job.state === "queued" ? "waiting for a worker" : "");
}
