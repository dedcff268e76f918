// Predicted beside measured, beside uniform plans and beside "first and last high".

import { intervals } from "./charts.js";
import { card, h } from "./dom.js";
import { bytes, count, number, percent } from "./format.js";

const POSITIONAL = "first and last high";

// positional: {loss, bytes}, predicted by the same table within the same bytes; or null.
export function qualityCard({ measured, totals, provenance }, positional = null) {
  const rows = measured ? measuredRows(measured, totals, provenance, positional) : predictedRows(totals, positional);
  const unit = measured?.unit ?? provenance.loss_unit ?? "predicted loss";
  return card(measured ? "Measured beside predicted and uniform" : "Quality",
    !measured && h("p", { class: "muted" }, "This plan was not measured."),
    h("div", { class: "scroll wrap", tabindex: "0", role: "region", "aria-label": "quality of this plan and others" }, intervals(rows, unit)),
    measured && sentences(measured, totals).map((words) => h("p", {}, words)),
    positional && !measured?.extra?.positional && totals.predicted_loss > 0 && h("p", {}, `"${capital(POSITIONAL)}" within the same bytes has ${number(positional.loss / totals.predicted_loss, 3)} times this plan's predicted loss.`),
    measured && h("p", { class: "note-line" }, `Filled: measured on ${count(measured.tokens)} held-out tokens or items. Hollow: predicted. Bars are 95 % intervals.`));
}

const capital = (words) => words[0].toUpperCase() + words.slice(1);
const wide = (value, stderr) => (stderr ? { value, low: value - 1.96 * stderr, high: value + 1.96 * stderr } : { value });
const OWN = "var(--curve)", OTHER = "var(--other)", THUMB = "var(--third)";

function predictedRows(totals, positional) {
  return [{ name: "this plan, predicted", tone: OWN, hollow: true, ...wide(totals.predicted_loss, totals.predicted_stderr) },
    positional && { name: `${POSITIONAL}, predicted`, tone: THUMB, hollow: true, value: positional.loss }].filter(Boolean);
}

function measuredRows(measured, totals, provenance, positional) {
  const same = provenance.loss_unit === measured.unit, below = measured.extra?.feasible_uniform, thumb = measured.extra?.positional;
  return [
    { name: "this plan, measured", tone: OWN, ...wide(measured.kl, measured.stderr) },
    same && { name: "this plan, predicted", tone: OWN, hollow: true, ...wide(totals.predicted_loss, totals.predicted_stderr) },
    measured.uniform && { name: `${measured.uniform.format}, measured`, tone: OTHER, ...wide(measured.uniform.kl, measured.uniform.stderr) },
    same && Number.isFinite(measured.uniform?.predicted_loss) && { name: `${measured.uniform.format}, predicted`, tone: OTHER, hollow: true, value: measured.uniform.predicted_loss },
    below && below.format !== measured.uniform?.format && { name: `${below.format}, measured`, tone: OTHER, ...wide(below.kl, below.stderr) },
    thumb && { name: `${POSITIONAL}, measured`, tone: THUMB, ...wide(thumb.kl, thumb.stderr) },
    same && (thumb || positional) && { name: `${POSITIONAL}, predicted`, tone: THUMB, hollow: true, value: thumb?.predicted_loss ?? positional.loss },
  ].filter(Boolean);
}

function sentences(measured, totals) {
  const { uniform } = measured, below = measured.extra?.feasible_uniform, thumb = measured.extra?.positional;
  if (!(measured.kl > 0)) return [];
  const times = (loss) => number(loss / measured.kl, 3);
  return [
    uniform && `The best uniform plan of no fewer bytes, ${uniform.format}, takes ${percent(uniform.bytes / totals.bytes - 1, 1)} more bytes (${bytes(uniform.bytes)}); its loss is ${times(uniform.kl)} times this plan's.`,
    below && `The best uniform plan within the budget, ${below.format} (${bytes(below.bytes)}), has ${times(below.kl)} times its loss.`,
    thumb && `"${capital(POSITIONAL)}" within the budget (${bytes(thumb.bytes)}) has ${times(thumb.kl)} times its loss.`,
  ].filter(Boolean);
}
