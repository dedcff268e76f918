"""llm-compressor: a recipe whose QuantizationModifier holds the config groups (research/04 section 5.3)."""

from __future__ import annotations

import json

from bitwright.core.errors import UnknownName
from bitwright.core.plan import Plan
from bitwright.engines.exporters.compressed_tensors import export as quantization_config

#: Modifiers that take `config_groups`; the second one needs calibration data.
MODIFIERS = ("QuantizationModifier", "GPTQModifier")


def export(plan: Plan, *, modifier: str = "QuantizationModifier") -> str:
    """YAML text (its values in JSON, which is YAML): one stage, one modifier, one group a scheme, exact targets.

    Raises UnknownName for another modifier, Unsupported as the compressed-tensors export does.
    """
    if modifier not in MODIFIERS:
        raise UnknownName("there is no such modifier", expected=" or ".join(MODIFIERS), got=repr(modifier)[:40])
    config = json.loads(quantization_config(plan))
    groups = {
        name: {key: value for key, value in group.items() if key != "format"}
        for name, group in config["config_groups"].items()
    }
    lines = ["quant_stage:", "  quant_modifiers:", f"    {modifier}:", f"      ignore: {json.dumps(config['ignore'])}"]
    lines.append("      config_groups:")
    for name, group in groups.items():
        lines += [f"        {name}:"]
        lines += [f"          {key}: {json.dumps(value, sort_keys=True)}" for key, value in sorted(group.items())]
    return "\n".join(lines) + "\n"
