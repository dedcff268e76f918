// A report: one plan, and its whole frontier where its sensitivity table came along, in a file of its own.

import { readColumns, unpacked } from "./columns.js";
import { h } from "./dom.js";
import { frontierPage } from "./frontier_page.js";
import { planPage } from "./plan_page.js";
import { startTheme } from "./theme.js";

const main = document.getElementById("main"), root = h("div", {}), below = h("div", {});
const data = JSON.parse(document.getElementById("data").textContent);

const exported = async (target) => {
  const found = data.exports[target];
  if (found.problem) throw Object.assign(new Error(found.problem.detail), { document: found.problem });
  return new TextDecoder().decode(await unpacked(found.packed));
};

const table = data.table && readColumns(await unpacked(data.table));

startTheme(document.getElementById("theme"));
main.append(root, below);
await planPage(root, { plan: data.plan, digest: data.digest, targets: data.targets, exported, menus: async () => data.menus, table: async () => table });
if (table) frontierPage(below, { table, bytes: data.plan.totals.bytes, engine: data.plan.engine, within: true });
main.dataset.ready = "report";
