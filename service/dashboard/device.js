// A budget in the words of a device: its memory, less keys and values of the context, less what the runtime needs.

import { h } from "./dom.js";
import { bytes, count } from "./format.js";

export class DeviceBudget {
  constructor(changed) {
    this.perToken = null;
    const field = (name, label, value, step) => {
      const input = h("input", { id: `device-${name}`, type: "number", min: "0", step, value, oninput: changed });
      this[name] = input;
      return h("div", { class: "field" }, h("label", { for: input.id }, label), input);
    };
    this.told = h("p", { class: "help muted wide" });
    this.element = h("div", { class: "form wide", hidden: true },
      field("context", "Context (tokens)", "8192", "1"), field("batch", "Batch (sequences)", "1", "1"), field("reserve", "Runtime and activations (GiB)", "1", "0.1"), field("token", "Keys and values of a token (bytes)", "0", "1"), this.told);
  }

  // What the model's own shapes say of a token's keys and values; null where they do not.
  learn(perToken) {
    this.perToken = perToken;
    if (perToken !== null) this.token.value = perToken;
  }

  #left(gib) {
    const held = Number(this.context.value) * Number(this.batch.value) * Number(this.token.value), reserve = Number(this.reserve.value) * 2 ** 30;
    return { held, reserve, left: Math.floor(gib * 2 ** 30 - held - reserve) };
  }

  // The budget of the whole file, as a request says it.
  words(gib) {
    return `${Math.max(0, this.#left(gib).left)}B`;
  }

  show(visible, gib) {
    this.element.hidden = !visible;
    const { held, reserve, left } = this.#left(gib);
    const origin = this.perToken === null ? "\u201cLook inside\u201d reads the bytes of a token from the model, at two bytes a number" : "bytes of a token from the model's own shapes, at two bytes a number";
    this.told.textContent = `${bytes(gib * 2 ** 30)} − ${bytes(held)} of keys and values − ${bytes(reserve)} = ${left > 0 ? `${bytes(left)} (${count(left)} bytes) for the file` : "nothing left for the file"}; ${origin}.`;
  }
}
