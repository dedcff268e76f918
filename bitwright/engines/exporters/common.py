"""What exporters share: names of modules, checks that list every refusal, and the report of substitutions."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bitwright.core.errors import Unsupported
from bitwright.core.formats import FloatFormat, Format, IntFormat, MixedFormat, parse_format
from bitwright.core.plan import Plan, PlanUnit

#: Receives one line for each substitution that an export with `nearest=True` made.
Report = Callable[[Sequence[str]], None]

_STACKED = re.compile(r"(?P<prefix>.+\.experts)\.(?P<role>[a-z_0-9]+?)(?:\.weight)?\[(?P<expert>[0-9]+)\]")
_HALVES = {"gate_up_proj": ("gate_proj", "up_proj")}


def to_stderr(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def module_names(unit: PlanUnit) -> tuple[str, ...]:
    """Exact module names of a unit in the listed form: `X.experts.gate_up_proj[3]` is two modules of expert 3."""
    match = _STACKED.fullmatch(unit.name)
    if match is None:
        return (unit.name.removesuffix(".weight"),)
    roles = _HALVES.get(match["role"], (match["role"],))
    return tuple(f"{match['prefix']}.{match['expert']}.{role}" for role in roles)


def unit_format(unit: PlanUnit) -> Format:
    return parse_format(unit.format)


def refuse_parts(plan: Plan, target: str) -> None:
    """Raise Unsupported for a plan whose tensors hold several formats: no tool but ours has words for that."""
    mixed = [unit for unit in plan.units if isinstance(unit_format(unit), MixedFormat)]
    if mixed:
        lines = [f"{unit.name}: {unit_format(unit).label}" for unit in mixed]
        raise refusal(target, lines, "one format a tensor", "plan again by tensor, or execute into `packed`")


def inputs(unit: PlanUnit) -> int | None:
    """Inputs of the unit's matrix, where the plan says its shape."""
    return unit.shape[-1] if unit.shape else None


def split(units: Iterable[PlanUnit]) -> tuple[list[tuple[PlanUnit, IntFormat]], list[PlanUnit]]:
    """(units with an integer format, units that stay unquantized), in the plan's order."""
    ints: list[tuple[PlanUnit, IntFormat]] = []
    kept: list[PlanUnit] = []
    for unit in units:
        format = unit_format(unit)
        if isinstance(format, IntFormat) and format.plain:
            ints.append((unit, format))
        elif isinstance(format, FloatFormat):
            kept.append(unit)
        else:
            raise refusal("this export", [f"{unit.name}: {unit.format}"], "integer and 16-bit float formats")
    return ints, kept


def refusal(target: str, lines: Sequence[str], expected: str, hint: str | None = None) -> Unsupported:
    """The error for what a target cannot hold: the first twenty in the message, up to a thousand in `units`."""
    shown = "; ".join(lines[:20]) + (f"; and {len(lines) - 20} more" if len(lines) > 20 else "")
    return Unsupported(
        f"{target} cannot hold {len(lines)} of the plan's choices",
        expected=expected,
        got=shown,
        hint=hint or "plan again with the target's engine (`bitwright plan --engine`), which cuts the menu first",
        units=list(lines[:1000]),
    )


def require(
    units: Iterable[tuple[PlanUnit, IntFormat]],
    why_not: Callable[[PlanUnit, IntFormat], str | None],
    target: str,
    expected: str,
) -> None:
    """Raise Unsupported with every unit for which `why_not` gives a reason."""
    found = [
        f"{unit.name}: {unit.format} ({why})" for unit, format in units if (why := why_not(unit, format)) is not None
    ]
    if found:
        raise refusal(target, found, expected)


def effective_group(unit: PlanUnit, format: IntFormat) -> int | None:
    """The group, or None (per channel) when it is longer than a row."""
    size = inputs(unit)
    return None if size is not None and format.group is not None and format.group > size else format.group


def ragged(unit: PlanUnit, format: IntFormat) -> str | None:
    """A reason when the group does not divide the unit's inputs (most engines want that)."""
    size, group = inputs(unit), effective_group(unit, format)
    if group is None or size is None or size % group == 0:
        return None
    return f"the group does not divide {size} inputs"


def commonest(
    ints: Sequence[tuple[PlanUnit, IntFormat]], fields: Callable[[PlanUnit, IntFormat], dict[str, Any]], target: str
) -> dict[str, Any]:
    """The settings of most weights, the target's default. Raises Unsupported for a plan that quantizes nothing."""
    weights: defaultdict[str, int] = defaultdict(int)
    settings: dict[str, dict[str, Any]] = {}
    for unit, format in ints:
        found = fields(unit, format)
        key = json.dumps(found, sort_keys=True)
        weights[key] += unit.elements
        settings[key] = found
    if not weights:
        raise refusal(target, ["every unit stays in 16 bits"], "at least one unit in an integer format")
    return settings[max(weights, key=lambda key: (weights[key], key))]


def one_format_each(
    units: Iterable[PlanUnit], key_of: Callable[[PlanUnit], Sequence[str]], target: str
) -> dict[str, PlanUnit]:
    """Target name to a unit that speaks for it. Raises Unsupported where units of one target name differ in format."""
    found: dict[str, PlanUnit] = {}
    mixed: dict[str, set[str]] = {}
    for unit in units:
        for key in key_of(unit):
            first = found.setdefault(key, unit)
            if first.format != unit.format:
                mixed.setdefault(key, {first.format}).add(unit.format)
    if mixed:
        lines = [f"{key}: {', '.join(sorted(formats))}" for key, formats in mixed.items()]
        raise refusal(
            target,
            lines,
            "one format for all experts of a role (they are one tensor there)",
            "plan with --engine, which ties them",
        )
    return found


def group_size(unit: PlanUnit, format: IntFormat) -> int:
    """-1 is one group a row, as GPTQ, AutoRound and Marlin write it."""
    group = effective_group(unit, format)
    return -1 if group is None else group


def anchored(name: str) -> str:
    """A regular expression that matches this name and no other."""
    return "^" + re.escape(name).replace("\\-", "-") + "$"
