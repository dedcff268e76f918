// The frontier of a stored sensitivity table, fed by the API.

import { once, post } from "./api.js";
import { frontierPage } from "./frontier_page.js";

export async function frontierView(root, { parts: [digest], query }) {
  const here = `/v1/sensitivities/${encodeURIComponent(digest)}`;
  const [table, menus] = await Promise.all([once(here), once(`${here}/engines`)]);
  return frontierPage(root, {
    table, menus, bytes: query.get("bytes"), ties: query.get("ties"), engine: query.get("engine"),
    prove: ({ ties, bytes }) => post("/v1/solve", { table: digest, ties, limits: { bytes } }),
    moved: (at) => history.replaceState(null, "", `#/frontier/${digest}?${new URLSearchParams(Object.entries(at).filter(([, v]) => v))}`),
    start: ({ bytes, engine }) => `#/new?${new URLSearchParams({ model: table.model.ref, budget: ((8 * bytes) / table.weights).toFixed(4), unit: "bpw", metric: table.metric, ...(engine ? { engine } : {}) })}`,
  });
}
