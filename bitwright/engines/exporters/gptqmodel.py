"""GPTQModel: quantize_config.json with `dynamic` (research/04 section 5.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bitwright.core.formats import IntFormat
from bitwright.core.plan import Plan, PlanUnit
from bitwright.engines.exporters.common import (
    anchored,
    commonest,
    group_size,
    inputs,
    module_names,
    ragged,
    require,
    split,
)
from bitwright.engines.names import unfused_experts

TARGET = "GPTQModel"
#: Widths that GPTQModel stores in its planar layout only.
PLANAR_WIDTHS = frozenset({5, 6, 7})
#: Engines that fuse look up the fused name; it gets its own pattern when its parts agree.
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def export(plan: Plan) -> str:
    """JSON text: the commonest format as default, an anchored `+:` pattern for each other module, `-:` for 16 bits.

    5, 6 and 7 bits need GPTQModel's planar layout (`checkpoint_format: gptq_p`), which is written then. Raises
    Unsupported for 1 bit and for shapes that are no multiple of 32.
    """
    return json.dumps(quantize_config(plan.units), indent=2) + "\n"


def quantize_config(units: Sequence[PlanUnit]) -> dict[str, Any]:
    """The content of quantize_config.json; see `export`."""
    ints, kept = split(units)
    require(ints, _why_not, TARGET, "2 to 8 bits, inputs and outputs in multiples of 32")
    base = commonest(ints, _fields, TARGET)
    settings = {name: _fields(unit, format) for unit, format in ints for name in _names(unit)}
    dynamic: dict[str, dict[str, Any]] = {"-:" + anchored(name): {} for unit in kept for name in _names(unit)}
    dynamic |= {"+:" + anchored(name): fields for name, fields in _with_fused(settings).items() if fields != base}
    planar = any(format.width in PLANAR_WIDTHS for _, format in ints)
    return {
        "quant_method": "gptq", **base, "desc_act": False, "pack_dtype": "int32",
        "checkpoint_format": "gptq_p" if planar else "gptq", "dynamic": dynamic,
    }  # fmt: skip


def _names(unit: PlanUnit) -> tuple[str, ...]:
    return tuple(map(unfused_experts, module_names(unit)))


def _why_not(unit: PlanUnit, format: IntFormat) -> str | None:
    if format.width == 1:
        return "GPTQ has no 1 bit"
    size = inputs(unit)
    if unit.shape and size is not None and (size % 32 or unit.shape[-2] % 32):
        return f"{unit.shape[-2]} x {size} is no multiple of 32"
    return ragged(unit, format)


def _fields(unit: PlanUnit, format: IntFormat) -> dict[str, Any]:
    return {"bits": format.width, "group_size": group_size(unit, format), "sym": format.symmetric}


def _with_fused(settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = dict(settings)
    for name, fields in settings.items():
        prefix, _, role = name.rpartition(".")
        for fused, parts in FUSED.items():
            if role == parts[0] and all(settings.get(f"{prefix}.{part}") == fields for part in parts):
                found[f"{prefix}.{fused}"] = fields
    return found
