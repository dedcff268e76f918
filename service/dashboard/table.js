// A sensitivity table as flat arrays: what is looked at in every frame of a drag must not chase objects.

const known = new WeakMap();

// {n, k, loss, cost, stderr: Float64Array (n * k, row by row), elements}. A forbidden cell has infinite loss.
export function flat(table) {
  if (!known.has(table)) known.set(table, flattened(table));
  return known.get(table);
}

function flattened(table) {
  const n = table.units.length, k = table.formats.length;
  const loss = new Float64Array(n * k), cost = new Float64Array(n * k), stderr = new Float64Array(n * k);
  for (let i = 0; i < n; i++) {
    const losses = table.loss[i], costs = table.cost_bytes[i], errors = table.stderr[i];
    for (let j = 0; j < k; j++) {
      loss[i * k + j] = losses[j] ?? Infinity;
      cost[i * k + j] = costs[j];
      stderr[i * k + j] = errors[j] ?? 0;
    }
  }
  return { n, k, loss, cost, stderr, elements: Float64Array.from(table.units, (unit) => unit.elements) };
}

// One number a unit: units joined by any of the kinds (transitively) share it. As Inventory.tie_ids, numbered densely.
export function tieGroups(units, kinds) {
  const parent = Uint32Array.from(units, (_, i) => i);
  const find = (i) => { while (parent[i] !== i) { parent[i] = parent[parent[i]]; i = parent[i]; } return i; };
  for (const kind of kinds) {
    const first = new Map();
    units.forEach((unit, i) => {
      const key = unit.families?.[kind];
      if (key === undefined) return;
      if (!first.has(key)) first.set(key, i);
      const a = find(first.get(key)), b = find(i);
      parent[Math.max(a, b)] = Math.min(a, b);
    });
  }
  return numbered(units.length, find);
}

// The same from lists of tied units, as a plan names them.
export function listedGroups(n, ties) {
  const first = Uint32Array.from({ length: n }, (_, i) => i);
  for (const group of ties) for (const i of group) first[i] = group[0];
  return numbered(n, (i) => first[i]);
}

function numbered(n, root) {
  const numbers = new Int32Array(n).fill(-1), groups = new Uint32Array(n);
  let next = 0;
  for (let i = 0; i < n; i++) {
    const at = root(i);
    if (numbers[at] < 0) numbers[at] = next++;
    groups[i] = numbers[at];
  }
  return groups;
}
