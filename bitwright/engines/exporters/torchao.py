"""torchao: Python source that builds an `FqnToConfig` (research/04 section 5.5)."""

from __future__ import annotations

from bitwright.core.formats import IntFormat
from bitwright.core.plan import Plan, PlanUnit
from bitwright.engines.exporters.common import effective_group, one_format_each, ragged, require, split, unit_format
from bitwright.engines.names import fused_experts, transformers_module

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

    Names are those of the model in memory. Experts are two stacked parameters a block there, named by parameter, so all
    experts of a block must share a format for gate and up, and one for down: Unsupported where they differ.
    """
    ints, _ = split(plan.units)
    require(ints, ragged, TARGET, "a group size that divides the inputs, or per channel")
    found = one_format_each(plan.units, lambda unit: (_name(unit, plan.model.architecture),), TARGET)
    rows = "".join(f"    ({name!r}, {_config(unit)}),\n" for name, unit in found.items())
    return HEAD.format(digest=plan.digest) + rows + "]))\n"


def _name(unit: PlanUnit, architecture: str) -> str:
    return fused_experts(unit.name) or transformers_module(unit.name.removesuffix(".weight"), architecture)


def _config(unit: PlanUnit) -> str:
    format = unit_format(unit)
    if not isinstance(format, IntFormat):
        return "None"
    group = effective_group(unit, format)
    granularity = "PerAxis(0)" if group is None else f"PerGroup({group})"
    mapping = "SYMMETRIC" if format.symmetric else "ASYMMETRIC"
    options = f"weight_dtype=torch.int{format.width}, granularity={granularity}, mapping_type=MappingType.{mapping}"
    return f"IntxWeightOnlyConfig({options})"
