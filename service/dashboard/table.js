// Groups of tied units of a sensitivity table (columns.js).

// One number a unit: units joined by any of the kinds (transitively) share it. As Inventory.tie_ids, numbered densely.
export function tieGroups({ units, families }, kinds) {
  const parent = Uint32Array.from(units, (_, i) => i);
  const find = (i) => { while (parent[i] !== i) { parent[i] = parent[parent[i]]; i = parent[i]; } return i; };
  for (const kind of kinds) {
    const first = new Map();
    families[kind]?.forEach((key, i) => {
      if (key < 0) return;
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
