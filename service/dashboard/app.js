// Routes: the fragment of the address names the view, so every view has a link of its own.

import { h, put } from "./dom.js";
import { problem } from "./parts.js";
import { jobsView } from "./jobs.js";
import { jobView } from "./job.js";
import { newView } from "./start.js";
import { planView } from "./plan.js";
import { frontierView } from "./frontier_view.js";
import { compareView } from "./compare.js";
import { solveView } from "./solve.js";
import { systemView } from "./system.js";
import { startTheme } from "./theme.js";

const ROUTES = [
  [/^\/jobs$/, jobsView, "Jobs"],
  [/^\/jobs\/([^/?]+)$/, jobView, "Job"],
  [/^\/new$/, newView, "New job"],
  [/^\/plans\/([^/?]+)$/, planView, "Plan"],
  [/^\/frontier\/([^/?]+)$/, frontierView, "Frontier"],
  [/^\/compare$/, compareView, "Compare"],
  [/^\/solve$/, solveView, "Solve"],
  [/^\/system$/, systemView, "System"],
];

const main = document.getElementById("main");
let leave = null;
let turn = 0;

async function show() {
  const [path, query = ""] = (location.hash.slice(1) || "/jobs").split("?");
  if (!path.startsWith("/")) return; // an anchor within the page
  const mine = ++turn;
  leave?.();
  leave = null;
  const found = ROUTES.map(([pattern, view, title]) => [pattern.exec(path), view, title]).find(([match]) => match);
  for (const link of document.querySelectorAll("nav a")) {
    if (`/${path.split("/")[1]}` === link.getAttribute("href").slice(1)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!found) return put(main, h("div", { class: "empty" }, h("h2", {}, "There is no such view"), h("a", { href: "#/jobs" }, "Back to the jobs")));
  const [match, view, title] = found;
  document.title = `${title} · bitwright`;
  const holder = h("div", {}, h("p", { class: "muted" }, "Loading …"));
  put(main, holder);
  window.scrollTo(0, 0);
  delete main.dataset.ready;
  try {
    const cleanup = await view(holder, { parts: match.slice(1).map(decodeURIComponent), query: new URLSearchParams(query) });
    if (mine !== turn) cleanup?.();
    else leave = cleanup ?? null;
  } catch (error) {
    if (mine === turn) put(holder, problem(error, show));
  }
  if (mine === turn) main.dataset.ready = path;
}

startTheme(document.getElementById("theme"));
window.addEventListener("hashchange", show);
show();
