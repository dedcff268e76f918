// The frontier of a stored sensitivity table, fed by the API.

import { post, tableOf } from "./api.js";
import { frontierPage } from "./frontier_page.js";

export async function frontierView(root, { parts: [digest], query }) {
  const table = await tableOf(digest);
  return frontierPage(root, {
    table, bytes: query.get("bytes"), ties: query.get("ties"), engine: query.get("engine"),
    prove: ({ ties, bytes, engine }) => post("/v1/solve", { table: digest, ties, limits: { bytes }, ...(engine ? { engine } : {}) }),
    moved: (at) => history.replaceState(null, "", `#/frontier/${digest}?${new URLSearchParams(Object.entries(at).filter(([, v]) => v))}`),
    start: ({ bytes, engine }) => `#/new?${new URLSearchParams({ model: table.model.ref, budget: ((8 * bytes) / table.weights).toFixed(4), unit: "bpw", metric: table.metric, ...(engine ? { engine } : {}) })}`,
  });
}
