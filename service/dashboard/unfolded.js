// The members of one cell of the heat map (experts of a layer, rows of a tensor), each with its own choice.

import { h, put } from "./dom.js";
import { count, plural } from "./format.js";

const MOST = 2048;

export class Unfolded {
  constructor(units, onpick, scale) {
    this.scale = scale;
    this.units = units;
    this.onpick = onpick;
    this.element = h("div", {});
    this.members = [];
  }

  close() {
    this.members = [];
    put(this.element);
  }

  open({ name, members }, plan) {
    this.members = members.slice(0, MOST);
    this.buttons = this.members.map((i, at) => h("button", { type: "button", class: "expert", tabindex: at ? "-1" : "0", onclick: () => this.onpick(i) }, h("span", {}, String(this.units[i].expert ?? at)), h("b", {}, "")));
    this.shown = new Int32Array(this.members.length).fill(-1);
    const words = this.units[members[0]].expert !== undefined && this.units[members[0]].expert !== null ? "expert" : "unit";
    put(this.element, h("h3", {}, `${name}: ${plural(members.length, words)} (number and bits)`), members.length > MOST && h("p", { class: "note-line" }, `The first ${count(MOST)} are shown.`),
      h("div", { class: "experts", role: "group", "aria-label": `${words}s of ${name}; arrow keys move`, onkeydown: (event) => this.#walk(event) }, this.buttons));
    this.show(plan);
  }

  #walk(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const here = this.buttons.indexOf(document.activeElement), next = this.buttons[here + (step ?? 0)];
    if (!step || here < 0 || !next) return;
    event.preventDefault();
    this.buttons[here].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  show({ names, choice }) {
    this.members.forEach((i, at) => {
      if (this.shown[at] === choice[i]) return;
      this.shown[at] = choice[i];
      const button = this.buttons[at], format = names[choice[i]], { scale } = this, bits = scale.of(format);
      button.style.setProperty("--tone", scale.colour(bits));
      button.style.setProperty("--text", scale.ink(bits));
      button.lastChild.textContent = scale.text(bits);
      button.title = `${this.units[i].name}: ${format}`;
      button.setAttribute("aria-label", `${this.units[i].name}: ${format}`);
    });
  }
}
