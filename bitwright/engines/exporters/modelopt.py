"""ModelOpt: Python source of a `quant_cfg` for `modelopt.torch.quantization.quantize` (research/04 section 5.7)."""

from __future__ import annotations

from bitwright.core.formats import IntFormat
from bitwright.core.plan import Plan, PlanUnit
from bitwright.engines.exporters.common import effective_group, module_names, ragged, require, split
from bitwright.engines.names import transformers_module

TARGET = "ModelOpt"
HEAD = '''"""Made by bitwright from plan {digest}: modelopt.torch.quantization.quantize(model, CONFIG)."""

CONFIG = {{
    "quant_cfg": [
        {{"quantizer_name": "*", "enable": False}},
'''
TAIL = """    ],
    "algorithm": "max",
}
"""


def export(plan: Plan) -> str:
    """Python text: every quantizer off, then one exact name a unit; later entries win (modelopt 0.47).

    Weight-only: ModelOpt makes its own scales (absolute maximum a group). hf_quant_config.json is written by ModelOpt
    itself; no algorithm is named that a reader would silently leave out. Raises Unsupported for asymmetric formats, 1
    bit, and experts, whose modules ModelOpt and transformers 5 name in several ways.
    """
    ints, _ = split(plan.units)
    require(ints, _why_not, TARGET, "symmetric 2 to 8 bits, groups that divide the inputs, no experts")
    rows = []
    for unit, format in ints:
        for module in module_names(unit):
            name = transformers_module(module, plan.model.architecture)
            rows.append(f'        {{"quantizer_name": "{name}.weight_quantizer", "cfg": {_config(unit, format)}}},\n')
    return HEAD.format(digest=plan.digest) + "".join(rows) + TAIL


def _config(unit: PlanUnit, format: IntFormat) -> str:
    group = effective_group(unit, format)
    scope = '"axis": 0' if group is None else f'"block_sizes": {{-1: {group}, "type": "static"}}'
    return f'{{"num_bits": {format.width}, {scope}}}'


def _why_not(unit: PlanUnit, format: IntFormat) -> str | None:
    if unit.expert is not None or ".experts." in unit.name:
        return "experts have no settled names there"
    if not format.symmetric:
        return "ModelOpt's integer weights are symmetric"
    if format.width == 1:
        return "a symmetric grid of 1 bit has one level only there"
    return ragged(unit, format)
