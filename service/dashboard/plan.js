// A plan of this server: its page, fed by the API.

import { get, once, tableOf, text } from "./api.js";
import { planPage } from "./plan_page.js";

export async function planView(root, { parts: [digest], query }) {
  const here = `/v1/plans/${encodeURIComponent(digest)}`;
  const [plan, engines] = await Promise.all([once(here), once("/v1/engines")]);
  const table = plan.provenance.table;
  const optional = (found) => found.catch((error) => { if (error.status === 404) return null; throw error; });
  return planPage(root, {
    plan, digest, unit: query.get("unit"),
    targets: engines.exporters,
    exported: (target) => text(`${here}/export/${encodeURIComponent(target)}`),
    table: () => (table ? optional(tableOf(table)) : null),
    menus: () => get(`${here}/engines`),
    links: { frontier: table && `#/frontier/${table}?bytes=${plan.totals.bytes}${plan.engine ? `&engine=${encodeURIComponent(plan.engine)}` : ""}`, compare: `#/compare?a=${digest}` },
    onunit: (name) => history.replaceState(null, "", `#/plans/${digest}?unit=${encodeURIComponent(name)}`),
  });
}
