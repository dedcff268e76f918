"""Plans, checkpoints, qualities, diffs and frontiers as text for people. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bitwright.cli import render

if TYPE_CHECKING:
    from bitwright.core.diff import PlanDiff
    from bitwright.core.plan import Measured, Memory, Plan


def plan_text(plan: Plan, checkpoint: Mapping[str, Any] | None) -> str:
    """Table of units, totals, certificate, measured quality beside uniform, checkpoint."""
    rows = [[u.name, short_format(u.format), u.bytes, u.loss] for u in plan.units]
    totals, unit = plan.totals, str(plan.provenance.get("loss_unit", ""))
    widths = ", ".join(f"{count} x {name}" for name, count in _format_counts(plan).most_common())
    facts = render.facts([
        ("model", f"{plan.model.ref} ({plan.model.architecture or plan.model.task})"),
        ("budget", plan.budget),
        ("formats", widths),
        (
            "stored",
            f"{totals.bits_per_weight:.4f} bits per weight ({plan.code_bits:.4f} of them codes), "
            f"{render.byte_text(totals.bytes)} in planned units",
        ),
        ("unquantized", render.byte_text(totals.unquantized_bytes)),
        ("whole file", render.byte_text(totals.file_bytes) if totals.file_bytes is not None else None),
        *(memory_facts(plan.memory) if plan.memory is not None else []),
        ("predicted loss", _with_error(totals.predicted_loss, totals.predicted_stderr, unit)),
        *predicted_facts(plan.provenance.get("prediction"), unit),
        ("certificate", render.certificate(plan.certificate)),
        *(measured_facts(plan.measured) if plan.measured is not None else [("measured", "not measured")]),
        ("for less loss", lower_loss(plan)),
        ("plan", plan.digest),
    ])  # fmt: skip
    parts = [render.table(["unit", "format", "bytes", "predicted loss"], rows), facts]
    if checkpoint is not None:
        parts.append(checkpoint_text(checkpoint))
    return "\n\n".join([*parts, *(f"warning: {text}" for text in plan.warnings)])


#: Stored bits from which rounding to nearest loses too little to speak of.
AMPLE_BITS = 6
#: What plans of language models are measured in (bitwright.core.plan.Measured).
TOKEN_KL = "nats of KL per token"


def lower_loss(plan: Plan) -> str | None:
    """What to add to the command of a default plan of a language model; docs/recipes/README.md has the figures.

    Other models were not measured so, and get no promise.
    """
    made = plan.provenance
    plain = made.get("recipe") == "auto" and made.get("quantizer") == "rtn"
    language = plan.measured is not None and plan.measured.unit == TOKEN_KL
    if not plain or not language or plan.totals.bits_per_weight >= AMPLE_BITS:
        return None
    return "--recipe auto-gptq usually measures a third to a sixth of this KL in as many bytes, slower"


def short_format(name: str | None) -> str | None:
    """A format's name; of a mixed one the mean width and how the matrix is cut."""
    if name is None or "(" not in name:
        return name
    from bitwright.core.formats import parse_format

    return f"{float(parse_format(name).bits):.2f} bits by {name.partition('(')[0]}"


def _format_counts(plan: Plan) -> Counter[str]:
    """How many units, or parts of units, take each format."""
    from bitwright.core.formats import parse_format
    from bitwright.core.mixed_format import expand

    return Counter(format for u in plan.units for _, format in expand(u.name, parse_format(u.format)))


def memory_facts(memory: Memory) -> list[tuple[str, str | None]]:
    """How a device budget is spent."""
    rows: list[tuple[str, str | None]] = [
        (f"  kv cache {c.part}", f"{c.format}, {render.byte_text(c.bytes)}, loss {c.loss:.4g}") for c in memory.cache
    ]
    return [
        ("device", f"{render.byte_text(memory.total_bytes)} of {render.byte_text(memory.usable_bytes)} usable, "
         f"{memory.context} tokens of context, batch {memory.batch}"),
        *rows,
        ("  activations", render.byte_text(memory.activation_bytes)),
        ("  engine", render.byte_text(memory.engine_bytes)),
    ]  # fmt: skip


def predicted_facts(prediction: Mapping[str, Any] | None, unit: str) -> list[tuple[str, str | None]]:
    """Expected KL with its 95% interval, and how many units another draw of calibration data would change."""
    if not prediction:
        return []
    found: list[tuple[str, str | None]] = [
        ("expected KL", f"{prediction['kl']:.4g} [{prediction['low']:.4g}, {prediction['high']:.4g}] {unit}")
    ]
    if prediction.get("joint") is not None:
        found.append(
            ("  sum of units", f"{prediction['additive']:.4g}, with their interactions {prediction['joint']:.4g}")
        )
    steady = prediction.get("stability")
    if steady:
        found.append(("stability", f"{100 * (1 - steady['changed']):.0f}% of units keep their format when resampled"))
    return found


def measured_facts(measured: Measured) -> list[tuple[str, str | None]]:
    """The measured quality beside the uniform plans above and below it in bytes; errors are 95% half-widths."""
    what = "items" if measured.unit.endswith("per item") else "tokens"
    found: list[tuple[str, str | None]] = [
        ("measured", f"{_with_error(measured.kl, measured.stderr, measured.unit)}, {measured.tokens:,} held-out {what}")
    ]
    if measured.uniform is not None:
        found.append(("  no fewer bytes", _uniform_text(measured.uniform.model_dump())))
    if measured.extra.get("feasible_uniform"):
        found.append(("  within budget", _uniform_text(measured.extra["feasible_uniform"])))
    joint = measured.extra.get("joint")
    if joint:
        words = "the same plan" if joint["same"] else "taken" if joint["taken"] else "not taken"
        found.append(("  with pair terms", f"{joint['kl']:.4g} against {joint['additive_kl']:.4g} without: {words}"))
    thumb = measured.extra.get("positional")
    if thumb:
        quality = _with_error(thumb["kl"], thumb["stderr"], "")
        found.append(("  first and last high", f"{quality}, {render.byte_text(thumb['bytes'])}"))
    found.append(("taken instead", measured.fallback))
    return found


def _uniform_text(uniform: Mapping[str, Any]) -> str:
    quality = _with_error(uniform["kl"], uniform["stderr"], "")
    return f"{quality} for {uniform['format']} everywhere, {render.byte_text(uniform['bytes'])}"


def _with_error(value: float, stderr: float | None, unit: str) -> str:
    """value +- 1.96 standard errors: a 95% interval of a mean (normal approximation)."""
    error = f" ± {render.number(1.96 * stderr)}" if stderr is not None else ""
    return f"{render.number(value)}{error} {unit}".rstrip()


def checkpoint_text(checkpoint: Mapping[str, Any]) -> str:
    """Where the checkpoint is and how large; further members as they come."""
    known = ("container", "path", "file_bytes", "bytes")
    size = checkpoint.get("file_bytes", checkpoint.get("bytes"))
    plain = [
        (key, str(value))
        for key, value in checkpoint.items()
        if key not in known and isinstance(value, str | int | float)
    ]
    facts = render.facts([
        ("checkpoint", str(checkpoint.get("path", "-"))),
        ("container", checkpoint.get("container")),
        ("size", render.byte_text(size) if isinstance(size, int) else None),
        *plain,
    ])  # fmt: skip
    return "\n\n".join([facts, *(f"warning: {text}" for text in checkpoint.get("warnings", ()))])


def quality_text(result: Mapping[str, Any]) -> str:
    quality = result["quality"]
    extra = quality.get("extra") or {}
    plain = [(key, render.cell(value)) for key, value in extra.items() if isinstance(value, str | int | float)]
    pairs = [
        (key, ", ".join(render.cell(v) for v in value))
        for key, value in extra.items()
        if isinstance(value, list | tuple)
    ]
    return render.facts([
        ("measured", str(result.get("of", ""))),
        ("KL", _with_error(quality["kl"], quality.get("stderr"), quality.get("unit", ""))),
        ("on", f"{quality['tokens']:,} tokens or items"),
        *plain,
        *pairs,
        *_pruning_facts(result.get("pruning")),
    ])  # fmt: skip


def _pruning_facts(found: Mapping[str, Any] | None) -> list[tuple[str, str | None]]:
    """What online pruning dropped, and what that cost."""
    if not found:
        return []
    return [
        ("experts pruned", f"{found['share']:.1%} of second experts; {found['protected']:.1%} more were protected"),
        ("without pruning", _with_error(found["kl_without"], found["stderr_without"], "")),
        ("cost of pruning", f"{found['cost']:+.4g}"),
    ]


def diff_text(diff: PlanDiff) -> str:
    if not diff.changes:
        return "the plans give every unit the same format"
    rows = [[c.unit, short_format(c.before), short_format(c.after), c.bytes_delta, c.loss_delta] for c in diff.changes]
    facts = render.facts([
        ("changed", f"{len(diff.changes)} of {diff.units} units"),
        ("bytes", f"{diff.bytes_delta:+,}"),
        ("predicted loss", f"{diff.loss_delta:+.4g}" if diff.comparable else "not comparable: from different tables"),
        ("measured", None if diff.measured_delta is None else f"{diff.measured_delta:+.4g}"),
    ])  # fmt: skip
    return render.table(["unit", "before", "after", "bytes", "predicted loss"], rows) + "\n\n" + facts
