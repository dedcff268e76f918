// How sure a plan is: losses are redrawn within their standard errors, and each time the plan is made anew.

import { Allocator } from "./allocate.js";

// Draws by the size of the table, so that a page stays a page.
export const drawsFor = (n) => (n <= 2000 ? 40 : n <= 20000 ? 10 : 4);

// Independent normal errors, seeded: the same plan always gets the same answer. options: group, allowed of the allocator.
// Gives {draws, kept: share of draws in which each unit keeps `choice`, units, bytes: mean shares}, or null without errors.
export async function stability(table, choice, budget, options) {
  const data = table.flat, draws = drawsFor(data.n), random = normal(1);
  if (!data.stderr.some((v) => v > 0)) return null;
  const kept = new Float64Array(data.n), loss = new Float64Array(data.loss.length);
  for (let draw = 0; draw < draws; draw++) {
    for (let at = 0; at < loss.length; at++) loss[at] = Math.max(0, data.loss[at] + data.stderr[at] * random());
    const plan = new Allocator(table, [], { ...options, loss }).at(budget);
    if (!plan) return null;
    for (let i = 0; i < data.n; i++) kept[i] += plan.choice[i] === choice[i] ? 1 / draws : 0;
    await new Promise((done) => setTimeout(done)); // the page stays alive between draws
  }
  let bytes = 0, stable = 0, units = 0;
  for (let i = 0; i < data.n; i++) {
    const own = data.cost[i * data.k + choice[i]];
    bytes += own;
    stable += own * kept[i];
    units += kept[i] / data.n;
  }
  return { draws, kept, units, bytes: stable / bytes };
}

// Box and Muller (1958) over mulberry32, a small generator with a seed.
function normal(seed) {
  let state = seed >>> 0, spare = null;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  return () => {
    if (spare !== null) { const value = spare; spare = null; return value; }
    const radius = Math.sqrt(-2 * Math.log(uniform())), angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}
