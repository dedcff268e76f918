// Where each unit stands in the heat map: a row for each module, a column for each layer.

const MOST_LAYERS = 400, MOST_CELLS = 4000, ACROSS = 40;

// {rows: [{name, cells: [{x, name, members: [unit]}]}], columns: [text], corner}. members: indices of units.
export function arrange(units) {
  const modules = new Map(), layers = new Set();
  units.forEach((unit, i) => {
    const { module, layer } = place(unit);
    if (!modules.has(module)) modules.set(module, new Map());
    const row = modules.get(module);
    if (!row.has(layer)) row.set(layer, []);
    row.get(layer).push(i);
    layers.add(layer);
  });
  const cells = [...modules.values()].reduce((sum, row) => sum + row.size, 0);
  if (layers.size > MOST_LAYERS || cells > MOST_CELLS) return mosaic(units);
  const order = [...layers].sort((a, b) => a - b); // what lies outside the layers (-1) comes first, where it is always in sight
  const at = new Map(order.map((layer, x) => [layer, x]));
  const rows = [...modules].map(([name, row]) => ({ name, cells: [...row].map(([layer, members]) => ({ x: at.get(layer), name: `${name}, ${layer < 0 ? "outside the layers" : `layer ${layer}`}`, members })).sort((a, b) => a.x - b.x) }));
  return { rows, columns: order.map((layer) => (layer < 0 ? "–" : String(layer))), corner: order[order.length - 1] >= 0 ? "module ╲ layer" : "module" };
}

// Units without a module are placed by the numbers in their names.
function place(unit) {
  if (unit.module) return { module: unit.module, layer: unit.layer ?? -1 };
  const layer = /\d+/.exec(unit.name)?.[0];
  return { module: unit.name.replace(/\.?\d+/g, "") || unit.name, layer: layer === undefined ? -1 : Number(layer) };
}

// Too many modules or layers for a table: equal runs of units, in their own order.
function mosaic(units) {
  const run = Math.ceil(units.length / MOST_CELLS), rows = [];
  for (let begin = 0; begin < units.length; begin += run * ACROSS) {
    const cells = [];
    for (let x = 0; x < ACROSS && begin + x * run < units.length; x++) {
      const from = begin + x * run, to = Math.min(units.length, from + run);
      cells.push({ x, name: `units ${from + 1} to ${to}`, members: Array.from({ length: to - from }, (_, i) => from + i) });
    }
    rows.push({ name: `from ${begin + 1}`, cells });
  }
  return { rows, columns: Array.from({ length: ACROSS }, (_, x) => (x % 10 ? "" : `+${x * run}`)), corner: "units" };
}
