// A budget in the words of a device, as the server reads it; and how a plan for one spends its memory.

import { card, h, table } from "./dom.js";
import { bytes, count, percent } from "./format.js";

// What the form needs besides the number: how many tokens of how many sequences the device serves.
export class DeviceBudget {
  constructor(changed) {
    const field = (name, label, value) => {
      const input = h("input", { id: `device-${name}`, type: "number", min: "1", step: "1", value, oninput: changed });
      this[name] = input;
      return h("div", { class: "field" }, h("label", { for: input.id }, label), input);
    };
    this.element = h("div", { class: "form wide", hidden: true }, field("context", "Context (tokens a sequence)", "8192"), field("batch", "Batch (sequences at once)", "1"),
      h("p", { class: "help muted wide" }, "The file, keys and values of the context, activations and what the engine itself takes must fit on the device together. Choose the engine that will run there."));
  }

  words(gib) {
    return `${gib}GiB device, ${this.context.value} context, batch ${this.batch.value}`;
  }

  show(visible) {
    this.element.hidden = !visible;
  }
}

// memory: as a plan holds it; its total is of the file, the cache, activations and the engine.
export function memoryCard(memory) {
  const cache = memory.cache.reduce((sum, choice) => sum + choice.bytes, 0);
  const rows = [
    { name: "the file", bytes: memory.total_bytes - cache - memory.activation_bytes - memory.engine_bytes, tone: "var(--curve)" },
    { name: `keys and values, ${count(memory.context)} tokens × ${count(memory.batch)}`, bytes: cache, tone: "var(--other)" },
    { name: "activations", bytes: memory.activation_bytes, tone: "var(--third)" },
    { name: "the engine itself", bytes: memory.engine_bytes, tone: "var(--warn)" },
    { name: "kept from the engine", bytes: memory.device_bytes - memory.usable_bytes, tone: "var(--soft)" },
  ];
  const free = Math.max(0, memory.device_bytes - rows.reduce((sum, row) => sum + row.bytes, 0));
  const share = (n) => `${((100 * n) / memory.device_bytes).toFixed(3)}%`;
  return card(`How ${bytes(memory.device_bytes)} of the device are spent`,
    h("div", { class: "stack", "aria-hidden": "true" }, rows.map((row) => h("i", { title: row.name, vars: { "--share": share(row.bytes), "--tone": row.tone } })), h("i", { vars: { "--share": share(free), "--tone": "var(--grid)" } })),
    table([{ title: "what", cell: (r) => [h("span", { class: "swatch", vars: { "--tone": r.tone } }), r.name] }, { title: "bytes", number: true, cell: (r) => bytes(r.bytes) }, { title: "share", number: true, cell: (r) => percent(r.bytes / memory.device_bytes, 1) }], [...rows, { name: "free", bytes: free, tone: "var(--grid)" }], { label: "memory of the device" }));
}
