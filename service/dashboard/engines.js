// Which engines load a plan, as traffic lights; fast enough to be asked in each frame of a drag.

import { h, put } from "./dom.js";
import { count, plural } from "./format.js";

// menus: as GET /v1/sensitivities/{digest}/engines, or as a plan's.
export class Preflight {
  constructor(menus) {
    this.menus = menus;
    this.member = Uint32Array.from(menus.unit_class);
    this.engines = menus.engines.map((engine) => ({ ...engine, group: menus.tied[engine.ties.join(",")] ?? null }));
    this.seen = new Uint32Array(menus.classes.length * menus.formats.length);
  }

  // (unit, format) -> bool of one engine, for the allocator.
  allowed(name) {
    const engine = this.engines.find((known) => known.name === name);
    return (unit, format) => engine.refusals[this.member[unit]][format] === null;
  }

  // choice: index of each unit's format.
  // Gives [{engine, state: loads | ties | refused, refused, torn, reasons}].
  judge(choice) {
    const k = this.menus.formats.length, { seen, member } = this;
    seen.fill(0);
    for (let i = 0; i < choice.length; i++) seen[member[i] * k + choice[i]] += 1;
    return this.engines.map((engine) => {
      let refused = 0;
      const reasons = new Map();
      for (let at = 0; at < seen.length; at++) {
        const why = seen[at] && engine.refusals[Math.floor(at / k)][at % k];
        if (!why) continue;
        refused += seen[at];
        const words = `${this.menus.formats[at % k]}: ${why}`;
        reasons.set(words, (reasons.get(words) ?? 0) + seen[at]);
      }
      const torn = engine.group ? tornGroups(engine.group, choice) : 0;
      return { engine, refused, torn, reasons, state: refused ? "refused" : torn ? "ties" : "loads" };
    });
  }
}

// How many groups hold more than one format.
function tornGroups(group, choice) {
  const first = new Int32Array(group.length).fill(-2);
  let torn = 0;
  for (let i = 0; i < group.length; i++) {
    const g = group[i];
    if (first[g] === -2) first[g] = choice[i];
    else if (first[g] !== -3 && first[g] !== choice[i]) { first[g] = -3; torn += 1; }
  }
  return torn;
}

const MOST_REASONS = 12;
const SIGN = { loads: ["✓", "loads"], ties: ["!", "must be tied"], refused: ["✕", "does not load"] };

// The container of the house holds every format of the grammar, several in one tensor too (docs/packed.md).
const own = () => h("li", { class: "loads" }, h("span", { class: "light", "aria-hidden": "true" }, "✓"), h("div", {}, h("span", { class: "engine" }, "bitwright (packed, its own reader)"), " ", h("b", {}, "loads")));

// A list of lights whose words change in place. onchoose(engine name) solves for that engine, where there is such a thing.
export class Lights {
  constructor(preflight, { onchoose } = {}) {
    this.preflight = preflight;
    this.rows = preflight.engines.map((engine) => {
      const light = h("span", { class: "light", "aria-hidden": "true" }), verdict = h("b", {}), brief = h("span", { class: "why" }), why = h("ul", { class: "plain" });
      const more = h("details", {}, h("summary", {}, "every reason"), why);
      const act = onchoose && h("button", { type: "button", class: "small", onclick: () => onchoose(engine.name), "aria-label": `Plan for ${engine.title}` }, "Plan for it");
      return { light, verdict, brief, why, more, act, element: h("li", {}, light, h("div", {}, h("span", { class: "engine" }, engine.title), " ", verdict, brief, more), act) };
    });
    this.element = h("ul", { class: "lights" }, own(), this.rows.map((row) => row.element));
  }

  // judged: as Preflight.judge gives it.
  show(judged) {
    judged.forEach((found, at) => {
      const row = this.rows[at], told = `${found.state} ${found.refused} ${found.torn} ${[...found.reasons.keys()].join()}`;
      if (row.told === told) return;
      row.told = told;
      const [sign, words] = SIGN[found.state];
      row.light.textContent = sign;
      row.element.className = found.state;
      row.verdict.textContent = words;
      row.brief.textContent = brief(found);
      row.more.hidden = found.state === "loads";
      put(row.why, reasons(found).map((text) => h("li", {}, text)));
      if (row.act) row.act.hidden = found.state === "loads";
    });
  }
}

// The same in a line: a button an engine, coloured by its verdict; the one that is planned for is pressed.
export class Chips {
  constructor(preflight, onchoose) {
    const chip = (name, title) => {
      const sign = h("span", { class: "sign", "aria-hidden": "true" }), verdict = h("span", { class: "unseen" });
      const element = h("button", { type: "button", class: "chip", title, onclick: () => onchoose(element.getAttribute("aria-pressed") === "true" ? "" : name) }, sign, name || "any engine", verdict);
      return { name, sign, verdict, element };
    };
    this.any = chip("", "plan with every format of the table");
    this.rows = preflight.engines.map((engine) => chip(engine.name, `plan for ${engine.title}`));
    this.element = h("div", { class: "chips", role: "group", "aria-label": "engine to plan for" }, h("span", { class: "muted small" }, "Plan for"), this.any.element, this.rows.map((row) => row.element));
  }

  choose(name) {
    for (const row of [this.any, ...this.rows]) row.element.setAttribute("aria-pressed", row.name === name);
  }

  show(judged) {
    judged.forEach(({ state }, at) => {
      const row = this.rows[at];
      if (row.state === state) return;
      row.state = state;
      const [sign, words] = SIGN[state];
      row.element.className = `chip ${state}`;
      row.sign.textContent = sign;
      row.verdict.textContent = `: ${words}`;
    });
  }
}

const tied = ({ engine, torn }) => `${plural(torn, "group")} that it fuses ${torn === 1 ? "has" : "have"} several formats (${engine.ties.map((kind) => TIES[kind] ?? kind).join(", ")})`;
// The reason itself where there is one alone, whatever the formats.
const alone = ({ reasons }) => { const whys = new Set([...reasons.keys()].map((words) => words.slice(words.indexOf(": ") + 2))); return whys.size === 1 ? [...whys][0] : null; };
const brief = (found) => [found.refused && `${plural(found.refused, "unit")}${alone(found) ? `: ${alone(found)}` : " in formats that it does not load"}`, found.torn && (found.refused ? `${plural(found.torn, "group")} untied` : tied(found))].filter(Boolean).join("; ");

function reasons(found) {
  const list = [...found.reasons].sort((a, b) => b[1] - a[1]);
  return [...list.slice(0, MOST_REASONS).map(([words, n]) => `${plural(n, "unit")}: ${words}`), list.length > MOST_REASONS && `and ${count(list.length - MOST_REASONS)} more reasons`, found.torn && tied(found)].filter(Boolean);
}

export const TIES = { qkv: "q, k and v together", gate_up: "gate and up together", expert: "each expert as one", expert_role: "one role of all experts together", experts: "all experts of a layer together", all_experts: "all experts of the model together" };
