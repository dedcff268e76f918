"""compressed-tensors: the `quantization_config` of transformers and vLLM; llm-compressor uses the same groups."""

from __future__ import annotations

import json
import re
from typing import Any

from bitwright.core.formats import IntFormat
from bitwright.core.plan import Plan, PlanUnit
from bitwright.engines.exporters.common import effective_group, module_names, ragged, require, split
from bitwright.engines.names import transformers_module

TARGET = "compressed-tensors"
QUANT_FORMAT = "pack-quantized"
#: transformers finds the scheme of fused experts only by a pattern; it matches nothing but listed experts.
EXPERTS = r"re:.*\.experts\.[0-9]+\..*"
_EXPERT = re.compile(r"(?P<block>.+)\.experts\.[0-9]+\..+")


def export(plan: Plan, *, status: str = "compressed") -> str:
    """JSON text: one group a scheme, with the exact names of its modules as targets (research/04 section 5.3).

    Exact names, because class names in two groups were mis-loaded; experts that all share one scheme get the pattern
    that transformers wants. What stays in 16 bits is in `ignore`: kept units, routers, a head that is not planned.
    status: `compressed` for a checkpoint on disk. Raises Unsupported for groups that do not divide the inputs.
    """
    ints, kept = split(plan.units)
    require(ints, ragged, TARGET, "a group size that divides the inputs, or per channel")
    schemes = {name: weight_arguments(unit, format) for unit, format in ints for name in _names(unit, plan)}
    ignored = {name for unit in kept for name in _names(unit, plan)}
    experts = {name for name in (*schemes, *ignored) if _EXPERT.fullmatch(name)}
    routers = {f"{match['block']}.gate" for name in experts if (match := _EXPERT.fullmatch(name))}
    if plan.model.task == "causal-lm" and "lm_head" not in schemes:
        ignored.add("lm_head")
    config = {
        "quant_method": "compressed-tensors",
        "format": QUANT_FORMAT,
        "quantization_status": status,
        "ignore": sorted(ignored | routers),
        "config_groups": _groups(schemes, experts),
    }
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _names(unit: PlanUnit, plan: Plan) -> tuple[str, ...]:
    return tuple(transformers_module(name, plan.model.architecture) for name in module_names(unit))


def _groups(schemes: dict[str, dict[str, Any]], experts: set[str]) -> dict[str, dict[str, Any]]:
    """One group a scheme, in the order of the plan."""
    expert_schemes = {json.dumps(schemes.get(name), sort_keys=True) for name in experts}
    together = len(expert_schemes) == 1 and "null" not in expert_schemes
    groups: dict[tuple[bool, str], dict[str, Any]] = {}
    for name, scheme in schemes.items():
        by_pattern = together and name in experts
        key = (by_pattern, json.dumps(scheme, sort_keys=True))
        new = {"format": QUANT_FORMAT, "targets": [EXPERTS] if by_pattern else [], "weights": scheme}
        group = groups.setdefault(key, new)
        if not by_pattern:
            group["targets"].append(name)
    return {f"group_{index}": group for index, group in enumerate(groups.values())}


def weight_arguments(unit: PlanUnit, format: IntFormat) -> dict[str, Any]:
    """The `weights` member of a group. One group a row is what the library calls `channel`."""
    group = effective_group(unit, format)
    grouped = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
    return {"num_bits": format.width, "type": "int", "symmetric": format.symmetric, "dynamic": False, **grouped}
