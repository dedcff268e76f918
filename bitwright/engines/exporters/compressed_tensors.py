"""compressed-tensors: the `quantization_config` of transformers and vLLM; llm-compressor uses the same groups."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
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
    """JSON text of `quantization_config` for the plan's own units.

    status: `compressed` for a checkpoint on disk. Raises Unsupported for groups that do not divide the inputs.
    """
    config = quantization_config(plan.units, plan.model.architecture, plan.model.task, status=status)
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def quantization_config(
    units: Sequence[PlanUnit],
    architecture: str,
    task: str,
    *,
    others: Iterable[str] = (),
    status: str = "compressed",
) -> dict[str, Any]:
    """One group a scheme, with the exact names of its modules as targets (research/04 section 5.3).

    Exact names, because class names in two groups were mis-loaded. Experts that all share one scheme get the pattern
    that transformers wants; those of a block that share one, a pattern of that block, which is what vLLM serves; others
    their exact names. What stays in 16 bits is in `ignore`, as vLLM wants it: kept units, routers, a head that is not
    planned, and `others`: modules of the model that are no units.
    """
    ints, kept = split(units)
    require(ints, ragged, TARGET, "a group size that divides the inputs, or per channel")

    def names(unit: PlanUnit) -> tuple[str, ...]:
        return tuple(transformers_module(name, architecture) for name in module_names(unit))

    schemes = {name: weight_arguments(unit, format) for unit, format in ints for name in names(unit)}
    ignored = {name for unit in kept for name in names(unit)} | set(others)
    blocks = {name: match["block"] for name in (*schemes, *ignored) if (match := _EXPERT.fullmatch(name))}
    ignored |= {f"{block}.gate" for block in blocks.values()}
    if task == "causal-lm" and "lm_head" not in schemes:
        ignored.add("lm_head")
    return {
        "quant_method": "compressed-tensors",
        "format": QUANT_FORMAT,
        "quantization_status": status,
        "ignore": sorted(ignored),
        "config_groups": _groups(schemes, blocks),
    }


def expert_pattern(module: str) -> str | None:
    """The anchored pattern for all experts of a module's block; None for a module that is no expert's."""
    match = _EXPERT.fullmatch(module)
    return None if match is None else f"re:^{re.escape(match['block'])}\\.experts\\.[0-9]+\\..*$"


def _groups(schemes: dict[str, dict[str, Any]], blocks: dict[str, str]) -> dict[str, dict[str, Any]]:
    """One group a scheme, in the order of the plan. blocks: module name of each expert to its block."""
    within: dict[str, set[str]] = defaultdict(set)
    for name, block in blocks.items():
        within[block].add(json.dumps(schemes.get(name), sort_keys=True))
    every = set().union(*within.values()) if within else set()
    together = len(every) == 1 and "null" not in every
    targets: dict[tuple[bool, str], dict[str, None]] = {}
    for name, scheme in schemes.items():
        target = name
        if name in blocks and together:
            target = EXPERTS
        elif name in blocks and len(within[blocks[name]]) == 1:
            target = expert_pattern(name) or name
        targets.setdefault((target == EXPERTS, json.dumps(scheme, sort_keys=True)), {})[target] = None
    return {
        f"group_{index}": {"format": QUANT_FORMAT, "targets": [*found], "weights": json.loads(scheme)}
        for index, ((_, scheme), found) in enumerate(targets.items())
    }


def weight_arguments(unit: PlanUnit, format: IntFormat) -> dict[str, Any]:
    """The `weights` member of a group. One group a row is what the library calls `channel`."""
    group = effective_group(unit, format)
    grouped = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
    return {"num_bits": format.width, "type": "int", "symmetric": format.symmetric, "dynamic": False, **grouped}
