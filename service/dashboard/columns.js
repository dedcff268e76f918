// A sensitivity table as the server's columns (GET /v1/sensitivities/{digest}, application/vnd.bitwright.columns): numbers
// are looked at where they lie in the answer, so that 50,000 units x 12 formats are there at once.

const KIND = { float64: Float64Array, int32: Int32Array };

// {model, metric, loss_unit, formats, weights, coverage, provenance, units, families: {kind: Int32Array, -1: none}, menus:
// as Preflight wants them, flat: {n, k, loss, cost, stderr (unit by unit), elements}}. A forbidden cell has infinite loss.
export function readColumns(buffer) {
  const head = new Uint8Array(buffer, 4, 4), length = head[0] + 256 * (head[1] + 256 * (head[2] + 256 * head[3]));
  const { arrays, values, names, menus, ...table } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const found = new Map(arrays.map(({ name, type, at, count }) => [name, new KIND[type](buffer, 8 + length + at, count)]));
  const named = (prefix) => Object.fromEntries([...found].filter(([name]) => name.startsWith(prefix)).map(([name, array]) => [name.slice(prefix.length), array]));
  const column = (name) => found.get(name), sizes = values.shape.map(([out, inputs]) => out * inputs);
  const layer = column("layer"), expert = column("expert"), module = column("module"), shape = column("shape");
  const units = names.map((name, i) => ({ name, module: values.module[module[i]], layer: layer[i] < 0 ? null : layer[i], expert: expert[i] < 0 ? null : expert[i], shape: values.shape[shape[i]], elements: sizes[shape[i]] }));
  return {
    ...table, units, families: named("family:"), menus: { ...menus, unit_class: column("class"), tied: named("tied:") },
    flat: { n: names.length, k: table.formats.length, loss: column("loss"), cost: column("cost"), stderr: column("stderr"), elements: Float64Array.from(shape, (s) => sizes[s]) },
  };
}

// What a report holds of a table or an export: gzip as base64.
export async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
