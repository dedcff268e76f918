// Numbers, bytes and times for people.

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let size = count;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (Math.abs(size) < 1024 || unit === "TiB") return unit === "B" ? `${size} B` : `${size.toFixed(size < 10 ? 2 : size < 100 ? 1 : 0)} ${unit}`;
    size /= 1024;
  }
}

export function byteUnit(top) {
  const units = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];
  return units.find(([size]) => top >= size) ?? [1, "B"];
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(digits - 1).replace("e-", "·10⁻").replace("e+", "·10⁺").replace(/([⁻⁺])(\d+)$/, (_, sign, d) => (sign === "⁻" ? "⁻" : "") + superscript(d));
  return String(Number(value.toPrecision(digits)));
}

const superscript = (digits) => [...digits].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]).join("");

export const power = (exponent) => `10${exponent < 0 ? "⁻" : ""}${superscript(String(Math.abs(exponent)))}`;
export const percent = (fraction, digits = 0) => `${(100 * fraction).toFixed(digits)} %`;
export const count = (value) => value.toLocaleString("en-GB");

export function ago(text) {
  if (!text) return "–";
  const seconds = Math.max(0, (Date.now() - new Date(text)) / 1000);
  if (seconds < 5) return "now";
  return `${duration(seconds)} ago`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const time = (text) => (text ? new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" }) : "–");
export const short = (digest) => (digest ?? "").replace("sha256:", "").slice(0, 12);
export const plural = (n, word, words = `${word}s`) => `${count(n)} ${n === 1 ? word : words}`;

// Long names keep both ends: the layer in front and the module behind tell them apart.
export const middle = (text, most = 48) => (text.length <= most ? text : `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2))}`);
