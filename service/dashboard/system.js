// The server itself: queues, states, versions, what it knows.

import { get, once, text } from "./api.js";
import { card, facts, h, put, table } from "./dom.js";
import { count, duration } from "./format.js";
import { problem, tile } from "./parts.js";

export async function systemView(root) {
  let gone = false, timer;
  const live = h("div", {});
  const [solvers, metrics, engines, recipes, document] = await Promise.all([once("/v1/solvers"), once("/v1/metrics"), once("/v1/engines"), once("/v1/recipes"), get("/openapi.json")]);
  const members = (list, name) => card(name, table([{ title: "name", cell: (e) => h("b", {}, e.name) }, { title: "what", cell: (e) => e.summary ?? e.title ?? "" }, { title: "installed", cell: (e) => (e.available === false ? "no" : "yes") }], list, { label: name }));
  put(root, h("div", { class: "head" }, h("div", {}, h("h1", {}, "System"), h("p", { class: "muted" }, `bitwright ${document.info.version}`)), h("div", { class: "row" }, h("a", { class: "button", href: "/openapi.json" }, "OpenAPI"), h("a", { class: "button", href: "/metrics" }, "Metrics"))),
    live, h("div", { class: "cards" }, members(solvers.solvers, "Solvers"), members(metrics.metrics, "Metrics"), members(engines.engines, "Engines"), members(recipes.recipes, "Recipes")));

  async function refresh() {
    try {
      const found = parse(await text("/metrics"));
      if (gone) return;
      const states = found.filter((m) => m.name === "bitwright_jobs");
      const one = (name) => found.find((m) => m.name === name)?.value ?? 0;
      put(live, h("div", { class: "tiles" }, states.map((m) => tile(m.labels.state, count(m.value))), tile("oldest waiting", duration(one("bitwright_queue_oldest_seconds"))), tile("expired leases", count(one("bitwright_expired_leases")))),
        card("Queues", facts(found.filter((m) => m.name === "bitwright_queue_depth").map((m) => [m.labels.queue, `${count(m.value)} waiting`])), !found.some((m) => m.name === "bitwright_queue_depth") && h("p", { class: "muted" }, "Nothing waits.")));
    } catch (error) { if (!gone) put(live, problem(error, refresh)); }
    if (!gone) timer = setTimeout(refresh, 3000);
  }
  await refresh();
  return () => { gone = true; clearTimeout(timer); };
}

export function parse(exposition) {
  return exposition.split("\n").filter((line) => line && !line.startsWith("#")).map((line) => {
    const [, name, labels, value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    return { name, value: Number(value), labels: Object.fromEntries([...(labels ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, k, v]) => [k, v])) };
  });
}
