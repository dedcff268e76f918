// Bits as colours: viridis (van der Walt and Smith, 2015), even in lightness and safe for the colour-blind.

const STOPS = [[68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140], [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37]];
// Where each width lies on the palette: the widths that plans mix most (2 to 6) get the most room.
const SCALE = [1, 2, 3, 4, 5, 6, 8, 16];
const PLACE = [0, 0.07, 0.27, 0.5, 0.68, 0.8, 0.92, 1];

export function position(bits) {
  if (bits <= SCALE[0]) return 0;
  for (let i = 1; i < SCALE.length; i++) {
    if (bits <= SCALE[i]) return PLACE[i - 1] + ((bits - SCALE[i - 1]) / (SCALE[i] - SCALE[i - 1])) * (PLACE[i] - PLACE[i - 1]);
  }
  return 1;
}

function mix(share) {
  const at = Math.min(0.9999, Math.max(0, share)) * (STOPS.length - 1);
  const low = Math.floor(at);
  return STOPS[low].map((v, i) => Math.round(v + (STOPS[low + 1][i] - v) * (at - low)));
}

export const colour = (bits) => `rgb(${mix(position(bits)).join(" ")})`;

// Black or white, whichever stands out more (WCAG relative luminance).
export const ink = (bits) => inkOn(mix(position(bits)));

function inkOn(tone) {
  const [r, g, b] = tone.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000" : "#fff";
}

// A change of bits: orange for fewer, blue for more (safe for the colour-blind), grey for none.
function shift(bits) {
  const [from, to] = bits > 0 ? [[178, 209, 240], [8, 72, 156]] : [[253, 206, 158], [158, 52, 4]], share = Math.min(1, Math.abs(bits) / 4);
  return from.map((v, i) => Math.round(v + share * (to[i] - v)));
}
const still = (bits) => Math.abs(bits) < 0.05;
export const shiftColour = (bits) => (still(bits) ? "var(--grid)" : `rgb(${shift(bits).join(" ")})`);
export const shiftInk = (bits) => (still(bits) ? "var(--soft)" : inkOn(shift(bits)));
export const shiftText = (bits) => { const value = Math.round(bits * 10) / 10; return value > 0 ? `+${value}` : value < 0 ? `−${-value}` : "0"; };

const known = new Map();

export function bitsOf(format) {
  if (!known.has(format)) known.set(format, width(format));
  return known.get(format);
}

// A plan whose tensors hold several formats, as units of one label each: mean bits and what the parts are. `exact` keeps
// the format itself, which spells the choice of every part after the @; `label` is all but that.
export function readable(plan) {
  if (!plan.units.some((unit) => unit.format.includes("("))) return plan;
  return { ...plan, parts: true, units: plan.units.map((unit) => (unit.format.includes("(") ? { ...unit, exact: unit.format, label: unit.format.split("@")[0], format: partsLabel(unit.format) } : unit)) };
}

// What the parts of a mixed format took: {kind: row, column ..., members: formats, counts: parts by member, total}.
export function partsOf(format) {
  const [kind, members, choice] = /^([^(]+)\(([^)]*)\)@?(.*)$/.exec(format).slice(1), names = members.split(",");
  const counts = names.map(() => 0);
  for (const digit of choice) counts[digit] += 1;
  return { kind, members: names, counts, total: choice.length };
}

function partsLabel(format) {
  const { kind, members, counts, total } = partsOf(format);
  return total ? `${(members.reduce((sum, name, j) => sum + bitsOf(name) * counts[j], 0) / total).toFixed(2)} bits by ${kind}` : format;
}

function width(format) {
  const levels = /^int-l(\d+)/.exec(format);
  if (levels) return Math.round(10 * Math.log2(Number(levels[1]))) / 10;
  const found = /^int(\d)/.exec(format);
  if (found) return Number(found[1]);
  if (format === "bf16" || format === "fp16") return 16;
  const grid = /^higgs-p(\d+)-n(\d+)/.exec(format);
  if (grid) return Math.log2(Number(grid[2])) / Number(grid[1]);
  const other = /(\d+(?:\.\d+)?)/.exec(format);
  return other ? Number(other[1]) : 16;
}
