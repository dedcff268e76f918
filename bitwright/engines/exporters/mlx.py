"""MLX: the `quantization` member of config.json, by exact module path (research/04 section 5.6)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from bitwright.core.formats import IntFormat
from bitwright.core.plan import Plan, PlanUnit
from bitwright.engines.exporters.common import commonest, inputs, one_format_each, require, split, unit_format

TARGET = "MLX"
WIDTHS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)
#: mlx-lm stacks experts under `switch_mlp`, with Mixtral's roles renamed.
ROLES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_LISTED = re.compile(r"(?P<prefix>.+)\.experts\.[0-9]+\.(?P<role>[a-z_0-9]+)\.weight")
_STACKED = re.compile(r"(?P<prefix>.+)\.experts\.(?P<role>[a-z_0-9]+?)(?:\.weight)?\[[0-9]+\]")


def export(plan: Plan) -> str:
    """JSON text: `{"quantization": {...}}` with the commonest format as default and `false` for 16 bits.

    MLX's affine grid (scale and bias a group) contains ours, symmetric or not; MLX chooses its own scales and stores
    32 bits a group for them. Raises Unsupported for 1 and 7 bits, per channel, other groups, and experts that differ.
    """
    return json.dumps({"quantization": quantization(plan.units)}, indent=2) + "\n"


def quantization(units: Sequence[PlanUnit]) -> dict[str, object]:
    """The content of the `quantization` member; see `export`."""
    ints, _ = split(units)
    require(ints, _why_not, TARGET, "2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128")
    base = commonest(ints, _fields, TARGET)
    entries: dict[str, object] = dict(base)
    for name, unit in one_format_each(units, module_paths, TARGET).items():
        format = unit_format(unit)
        if not isinstance(format, IntFormat):
            entries[name] = False
        elif _fields(unit, format) != base:
            entries[name] = _fields(unit, format)
    return entries


def _fields(unit: PlanUnit, format: IntFormat) -> dict[str, Any]:
    return {"group_size": format.group, "bits": format.width, "mode": "affine"}


def module_paths(unit: PlanUnit) -> tuple[str, ...]:
    """Paths in mlx-lm's module tree; a stacked gate_up_proj is two modules there."""
    match = _LISTED.fullmatch(unit.name) or _STACKED.fullmatch(unit.name)
    if match is None:
        return (unit.name.removesuffix(".weight"),)
    role = ROLES.get(match["role"], match["role"])
    roles = ("gate_proj", "up_proj") if role == "gate_up_proj" else (role,)
    return tuple(f"{match['prefix']}.switch_mlp.{r}" for r in roles)


def _why_not(unit: PlanUnit, format: IntFormat) -> str | None:
    if format.width not in WIDTHS:
        return f"MLX has no {format.width} bits"
    if format.group not in GROUPS:
        return "MLX has groups of 32, 64 and 128"
    size = inputs(unit)
    return f"the group does not divide {size} inputs" if size is not None and size % format.group else None
