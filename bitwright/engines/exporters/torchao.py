"""torchao: Python source that builds an `FqnToConfig` (research/04 section 5.5)."""

from __future__ import annotations

import re

from bitwright.core.formats import IntFormat
from bitwright.core.plan import Plan, PlanUnit
from bitwright.engines.exporters.common import one_format_each, ragged, require, split, unit_format

TARGET = "torchao"
HEAD = '''"""Made by bitwright from plan {digest}: quantize_(model, config, filter_fn=None)."""

from collections import OrderedDict

import torch
from torchao.quantization import FqnToConfig, IntxWeightOnlyConfig, PerAxis, PerGroup
from torchao.quantization.quant_primitives import MappingType

config = FqnToConfig(OrderedDict([
'''


def export(plan: Plan) -> str:
    """Python text with one exact name an entry; `None` leaves a module in 16 bits.

    Stacked experts are named by parameter, so all experts of a role must share a format: Unsupported where they differ.
    """
    ints, _ = split(plan)
    require(ints, ragged, TARGET, "a group size that divides the inputs, or per channel")
    found = one_format_each(plan, _name, TARGET)
    rows = "".join(f"    ({name!r}, {_config(unit)}),\n" for name, unit in found.items())
    return HEAD.format(digest=plan.digest) + rows + "]))\n"


def _name(unit: PlanUnit) -> tuple[str]:
    """Module name; the parameter's name for one matrix of a stacked tensor."""
    plain = re.sub(r"\[[0-9]+\]$", "", unit.name)
    return (plain if plain != unit.name else unit.name.removesuffix(".weight"),)


def _config(unit: PlanUnit) -> str:
    format = unit_format(unit)
    if not isinstance(format, IntFormat):
        return "None"
    granularity = "PerAxis(0)" if format.group is None else f"PerGroup({format.group})"
    mapping = "SYMMETRIC" if format.symmetric else "ASYMMETRIC"
    options = f"weight_dtype=torch.int{format.width}, granularity={granularity}, mapping_type=MappingType.{mapping}"
    return f"IntxWeightOnlyConfig({options})"
