// The frontier of a sensitivity table, in the browser: lower hulls, steps by falling slope, prefix sums (DESIGN section 5).
// Building costs one sort; any budget is then a binary search and one pass, so that a dragged budget is followed at once.

import { tieGroups } from "./table.js";

export class Allocator {
  // table: as columns.js reads it; tieKinds: families whose members share a format.
  // group: instead of tieKinds, one number a unit; allowed: (unit, format) -> bool cuts the menu; loss: other losses.
  constructor(table, tieKinds = [], { group, allowed, loss } = {}) {
    this.table = table;
    this.flat = table.flat;
    this.formats = this.flat.k;
    this.group = group ?? tieGroups(table, tieKinds);
    this.groups = this.group.reduce((top, g) => Math.max(top, g), -1) + 1;
    this.#build(...this.#summed(loss ?? this.flat.loss, allowed));
    this.uniform = this.#uniform(allowed);
  }

  #summed(losses, allowed) {
    const { n, k, cost: costs } = this.flat, loss = new Float64Array(this.groups * k), cost = new Float64Array(this.groups * k);
    Object.assign(this, { groupLoss: loss, groupCost: cost });
    for (let unit = 0; unit < n; unit++) {
      const at = this.group[unit] * k, from = unit * k;
      for (let j = 0; j < k; j++) {
        loss[at + j] += allowed !== undefined && !allowed(unit, j) ? Infinity : losses[from + j];
        cost[at + j] += costs[from + j];
      }
    }
    return [loss, cost];
  }

  #build(loss, cost) {
    const k = this.formats, most = this.groups * (k - 1), hull = new Uint8Array(k);
    const owner = new Uint32Array(most), to = new Uint8Array(most), dcost = new Float64Array(most), dloss = new Float64Array(most), slope = new Float64Array(most);
    this.first = new Uint8Array(this.groups);
    this.baseCost = 0;
    this.baseLoss = 0;
    let steps = 0;
    for (let g = 0; g < this.groups; g++) {
      const at = g * k, corners = hullInto(loss, cost, at, k, hull);
      if (!corners) throw new Error("a unit may take no format at all");
      this.first[g] = hull[0];
      this.baseCost += cost[at + hull[0]];
      this.baseLoss += loss[at + hull[0]];
      for (let i = 1; i < corners; i++, steps++) {
        owner[steps] = g;
        to[steps] = hull[i];
        dcost[steps] = cost[at + hull[i]] - cost[at + hull[i - 1]];
        dloss[steps] = loss[at + hull[i - 1]] - loss[at + hull[i]];
        slope[steps] = dloss[steps] / dcost[steps];
      }
    }
    const order = falling(slope.subarray(0, steps));
    Object.assign(this, { owner: taken(owner, order), to: taken(to, order), dcost: taken(dcost, order), dloss: taken(dloss, order), slope: taken(slope, order) });
    this.steps = order.length;
    this.cost = new Float64Array(this.steps + 1);
    this.cost[0] = this.baseCost;
    for (let i = 0; i < this.steps; i++) this.cost[i + 1] = this.cost[i] + this.dcost[i];
    // Losses are summed from the cheap end upwards, so that small ones keep their digits.
    this.loss = new Float64Array(this.steps + 1);
    const all = this.dloss.reduce((sum, v) => sum + v, 0);
    this.loss[this.steps] = Math.max(0, this.baseLoss - all);
    for (let i = this.steps - 1; i >= 0; i--) this.loss[i] = this.loss[i + 1] + this.dloss[i];
  }

  #uniform(allowed) {
    const { n, k, loss: losses, cost } = this.flat, found = [];
    this.table.formats.forEach((name, j) => {
      let loss = 0, bytes = 0;
      for (let u = 0; u < n; u++) {
        loss += allowed && !allowed(u, j) ? Infinity : losses[u * k + j];
        bytes += cost[u * k + j];
      }
      if (Number.isFinite(loss)) found.push({ name, format: j, loss, bytes });
    });
    return found;
  }

  get least() { return this.cost[0]; }
  get most() { return this.cost[this.steps]; }

  // The best loss that no plan of so many bytes can beat (linear relaxation).
  bound(bytes) {
    const k = this.#prefix(bytes);
    if (k < 0) return Infinity;
    return k >= this.steps ? this.loss[this.steps] : this.loss[k] - (bytes - this.cost[k]) * this.slope[k];
  }

  // The plan at a budget: steps while they fit, then later steps that still fit.
  at(budget) {
    const k = this.#prefix(budget);
    if (k < 0) return null;
    const group = this.first.slice(), blocked = new Uint8Array(this.groups);
    for (let i = 0; i < k; i++) group[this.owner[i]] = this.to[i];
    let bytes = this.cost[k], saved = 0, left = budget - bytes;
    for (let i = k; i < this.steps && left > 0; i++) {
      const g = this.owner[i];
      if (blocked[g]) continue;
      if (this.dcost[i] <= left) { group[g] = this.to[i]; left -= this.dcost[i]; bytes += this.dcost[i]; saved += this.dloss[i]; }
      else blocked[g] = 1;
    }
    const choice = new Uint8Array(this.group.length);
    for (let u = 0; u < choice.length; u++) choice[u] = group[this.group[u]];
    const loss = Math.max(this.loss[k] - saved, this.loss[this.steps]), bound = Math.min(this.bound(budget), loss);
    return { choice, bytes, loss, bound, gap: loss - bound, multiplier: k < this.steps ? this.slope[k] : 0 };
  }

  #prefix(bytes) {
    if (bytes < this.cost[0]) return -1;
    let low = 0, high = this.steps;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.cost[middle] <= bytes) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  // Greatest distance below the chord between the ends, both axes scaled to 0..1 (as solvers.frontier).
  get knee() {
    const x0 = this.least, dx = this.most - x0, y1 = this.loss[this.steps], dy = this.loss[0] - y1;
    let best = 0, far = -Infinity;
    for (let i = 0; i <= this.steps; i++) {
      const distance = 1 - (this.cost[i] - x0) / dx - (this.loss[i] - y1) / dy;
      if (distance > far) { far = distance; best = i; }
    }
    return { bytes: this.cost[best], loss: this.loss[best] };
  }

  // The cheapest uniform plan of no fewer bytes.
  uniformAbove(bytes) {
    return this.uniform.filter((u) => u.bytes >= bytes).sort((a, b) => a.bytes - b.bytes)[0] ?? null;
  }

  // The uniform plan of least loss within so many bytes.
  uniformWithin(bytes) {
    return this.uniform.filter((u) => u.bytes <= bytes).sort((a, b) => a.loss - b.loss)[0] ?? null;
  }

  // Shares of the weights by format of the best plans at these budgets, which rise.
  mix(budgets) {
    const weight = new Float64Array(this.groups), now = this.first.slice(), sums = new Float64Array(this.formats);
    this.group.forEach((g, i) => { weight[g] += this.flat.elements[i]; });
    const total = weight.reduce((sum, v) => sum + v, 0) || 1;
    for (let g = 0; g < this.groups; g++) sums[now[g]] += weight[g];
    let i = 0;
    return budgets.map((budget) => {
      for (; i < this.steps && this.cost[i + 1] <= budget; i++) {
        const g = this.owner[i];
        sums[now[g]] -= weight[g];
        now[g] = this.to[i];
        sums[now[g]] += weight[g];
      }
      return sums.map((v) => Math.max(0, v) / total);
    });
  }

  // The rule of thumb "first and last layers high, the rest uniform", as solvers.positional.
  positional(budget) {
    const k = this.formats, all = Array.from({ length: k }, (_, j) => j);
    const fine = (g, j) => Number.isFinite(this.groupLoss[g * k + j]);
    const pick = (g, j) => (fine(g, j) ? j : this.first[g]);
    const total = all.map((j) => { let sum = 0; for (let g = 0; g < this.groups; g++) sum += this.groupCost[g * k + pick(g, j)]; return sum; });
    const ladder = all.sort((a, b) => total[a] - total[b] || a - b), fits = ladder.filter((j) => total[j] <= budget);
    if (!fits.length) return null;
    const base = fits[fits.length - 1], high = ladder[fits.length];
    const choice = Int32Array.from({ length: this.groups }, (_, g) => pick(g, base));
    let left = budget - total[base];
    for (let t = 0; high !== undefined && t < this.groups; t++) {
      const g = t % 2 ? this.groups - 1 - (t >> 1) : t >> 1, extra = this.groupCost[g * k + pick(g, high)] - this.groupCost[g * k + choice[g]];
      if (extra > left) break;
      choice[g] = pick(g, high);
      left -= extra;
    }
    let loss = 0;
    for (let g = 0; g < this.groups; g++) loss += this.groupLoss[g * k + choice[g]];
    return { loss, bytes: budget - left };
  }

  // About `most` points of the curve for drawing.
  points(most = 600) {
    const found = [];
    const stride = Math.max(1, Math.floor(this.steps / most));
    for (let i = 0; i <= this.steps; i += stride) found.push([this.cost[i], this.loss[i]]);
    if (this.steps % stride) found.push([this.cost[this.steps], this.loss[this.steps]]);
    return found;
  }
}

// Formats on the lower convex hull of (cost, loss), cheapest first; forbidden formats have infinite loss.
export function lowerHull(loss, cost, at, k) {
  const found = new Uint8Array(k);
  return [...found.subarray(0, hullInto(loss, cost, at, k, found))];
}

// The same into `out`; gives how many. Without objects: it is asked once for each of 50,000 units.
function hullInto(loss, cost, at, k, out) {
  let m = 0, corners = 0;
  for (let j = 0; j < k; j++) {
    if (!Number.isFinite(loss[at + j])) continue;
    let i = m++;
    for (; i > 0; i--) {
      const before = out[i - 1], difference = cost[at + before] - cost[at + j];
      if (difference < 0 || (difference === 0 && loss[at + before] <= loss[at + j])) break;
      out[i] = before;
    }
    out[i] = j;
  }
  for (let i = 0; i < m; i++) {
    const j = out[i];
    if (corners && loss[at + j] >= loss[at + out[corners - 1]]) continue;
    if (corners && cost[at + j] === cost[at + out[corners - 1]]) corners -= 1;
    while (corners > 1) {
      const b = out[corners - 1], a = out[corners - 2];
      const rising = (loss[at + a] - loss[at + b]) * (cost[at + j] - cost[at + b]) <= (loss[at + b] - loss[at + j]) * (cost[at + b] - cost[at + a]);
      if (!rising) break;
      corners -= 1;
    }
    out[corners++] = j;
  }
  return corners;
}

// values[order], of the same kind.
function taken(values, order) {
  const found = new values.constructor(order.length);
  for (let i = 0; i < order.length; i++) found[i] = values[order[i]];
  return found;
}

// Indices of positive numbers from the largest down, equal ones in their order: a radix sort of their bits, which rise with
// the number; a comparison sort of half a million slopes takes as long as everything else together.
export function falling(values) {
  const n = values.length, bits = new Uint16Array(Float64Array.from(values).buffer), counts = new Uint32Array(65536);
  let from = new Uint32Array(n), into = new Uint32Array(n);
  for (let i = 0; i < n; i++) from[i] = i;
  for (let digit = 0; digit < 4; digit++) {
    counts.fill(0);
    for (let i = 0; i < n; i++) counts[65535 - bits[4 * i + digit]] += 1;
    for (let c = 0, sum = 0; c < 65536; c++) { const here = counts[c]; counts[c] = sum; sum += here; }
    for (let i = 0; i < n; i++) into[counts[65535 - bits[4 * from[i] + digit]]++] = from[i];
    [from, into] = [into, from];
  }
  return from;
}
