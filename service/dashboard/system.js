// The server itself: queues, workers and their leases, what the disk holds, versions, what it knows.

import { get, once } from "./api.js";
import { card, facts, h, put, table } from "./dom.js";
import { bytes, count, duration } from "./format.js";
import { problem, tile } from "./parts.js";

export async function systemView(root) {
  let gone = false, timer;
  const live = h("div", {}, h("p", { class: "muted" }, "Loading …"));
  put(root, h("div", { class: "head" }, h("h1", {}, "System"), h("div", { class: "row" }, h("a", { class: "button", href: "/openapi.json" }, "OpenAPI"), h("a", { class: "button", href: "/metrics" }, "Metrics"))), live);
  const catalogs = h("div", { class: "cards" });
  root.append(catalogs);

  async function refresh() {
    try {
      const found = await get("/v1/system");
      if (!gone) put(live, shown(found));
    } catch (error) { if (!gone) put(live, problem(error, refresh)); }
    if (!gone) timer = setTimeout(refresh, 3000);
  }
  await refresh();
  const [solvers, metrics, engines, recipes] = await Promise.all([once("/v1/solvers"), once("/v1/metrics"), once("/v1/engines"), once("/v1/recipes")]);
  put(catalogs, members(solvers.solvers, "Solvers"), members(metrics.metrics, "Metrics"), members(engines.engines, "Engines"), members(recipes.recipes, "Recipes"));
  return () => { gone = true; clearTimeout(timer); };
}

const members = (list, name) => card(name, table([{ title: "name", cell: (e) => h("b", {}, e.name) }, { title: "what", cell: (e) => e.summary ?? [e.title, e.version].filter(Boolean).join(", ") }, ...(list.some((e) => e.available !== undefined) ? [{ title: "installed", cell: (e) => (e.available === false ? "no" : "yes") }] : [])], list, { label: name }));

function shown(found) {
  const { limits } = found;
  return [
    h("div", { class: "tiles" }, Object.entries(found.states).map(([name, n]) => tile(name, count(n))), tile("oldest waiting", duration(found.oldest_waiting_seconds)), tile("expired leases", count(found.expired_leases))),
    card("Workers and leases", found.workers.length ? table([
      { title: "worker", cell: (w) => h("span", { class: "mono" }, w.worker ?? "waits for its steps") }, { title: "job", cell: (w) => (w.job ? h("a", { href: `#/jobs/${w.job}` }, w.kind) : `${w.kind} of someone else`) },
      { title: "stage", cell: (w) => w.stage || "starting" }, { title: "attempt", number: true, cell: (w) => count(w.attempt) }, { title: "since", number: true, cell: (w) => (w.since ? duration((Date.now() - new Date(w.since)) / 1000) : "–") },
      { title: "lease", number: true, cell: (w) => (w.lease_seconds_left === null ? "–" : w.lease_seconds_left < 0 ? `expired ${duration(-w.lease_seconds_left)} ago` : `${duration(w.lease_seconds_left)} left`) },
    ], found.workers, { label: "workers" }) : h("p", { class: "muted" }, limits.embedded_workers ? `Nothing runs. ${limits.embedded_workers} embedded ${limits.embedded_workers === 1 ? "worker waits" : "workers wait"} for jobs.` : "Nothing runs, and this server has no worker of its own: start `bitwright worker`.")),
    h("div", { class: "cards" }, h("div", {},
      card("Queues", found.queues.length ? table([{ title: "queue", cell: (q) => q.queue }, { title: "waiting", number: true, cell: (q) => count(q.waiting) }], found.queues, { label: "queues" }) : h("p", { class: "muted" }, "Nothing waits.")),
      card("On disk", found.cache.length ? table([{ title: "kind", cell: (c) => c.kind }, { title: "blobs", number: true, cell: (c) => `${c.whole ? "" : "more than "}${count(c.blobs)}` }, { title: "bytes", number: true, cell: (c) => bytes(c.bytes) }], found.cache, { label: "cache" }) : h("p", { class: "muted" }, "Nothing is stored yet."))), h("div", {}, card("Versions", facts([["bitwright", found.version], ...Object.entries(found.versions).map(([name, words]) => [name, words ?? "not installed"])])),
      card("Limits", facts([["lease", duration(limits.lease_seconds)], ["attempts of a job", count(limits.max_attempts)], ["longest attempt", duration(limits.job_seconds)], ["kept", `${limits.retention_days} days`], ["largest request", bytes(limits.max_request_bytes)], ["broker", limits.broker ? "Redis" : "none: embedded"]])))),
  ];
}
