"""Names of modules as transformers 5 has them in memory, where they differ from the checkpoint's tensor names.

Vision transformers were renamed inside transformers 5 while their checkpoints keep the old names, which the loader
translates (transformers 5.23, conversion_mapping, entry ViTModel); configs that name modules need the new names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: (old part of the name, new part), applied in this order, by the beginning of the architecture's class name.
_VIT = (
    ("encoder.layer.", "layers."),
    ("attention.query", "q_proj"),
    ("attention.key", "k_proj"),
    ("attention.value", "v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
_RENAMED = {"ViTFor": _VIT, "ViTModel": _VIT, "DeiT": _VIT, "ViTMSN": _VIT}


#: Listed and stacked experts: transformers 5 keeps both as two stacked parameters a block (entries mixtral, qwen2_moe).
_EXPERT = re.compile(
    r"(?P<block>.+)\.(?:block_sparse_moe|mlp)\.experts\."
    r"(?:[0-9]+\.(?P<listed>[a-z_0-9]+)\.weight|(?P<stacked>[a-z_]+)(?:\.weight)?\[[0-9]+\])"
)
_GATE_UP = frozenset({"w1", "w3", "gate_proj", "up_proj", "gate_up_proj"})


def fused_experts(unit: str) -> str | None:
    """The stacked parameter that holds an expert's matrix in memory; None for a unit that is no expert's."""
    match = _EXPERT.fullmatch(unit)
    if match is None:
        return None
    role = match["listed"] or match["stacked"]
    return f"{match['block']}.mlp.experts.{'gate_up_proj' if role in _GATE_UP else 'down_proj'}"


#: Mixtral's own names of what every other mixture calls gate_proj, up_proj and down_proj.
_MIXTRAL = re.compile(
    r"(?P<block>.+)\.block_sparse_moe\.(?:gate|experts\.(?P<e>[0-9]+)\.(?P<role>w[123]))(?P<end>\.weight)?"
)
_MIXTRAL_ROLES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def unfused_experts(name: str) -> str:
    """The name under which GPTQModel looks for a tensor or module of a Mixtral; other names as they are.

    It takes the experts that transformers 5 fuses apart again, as `mlp.experts.E.gate_proj`, whatever the checkpoint
    called them (gptqmodel 7.6, module_tree of MixtralQModel); weights under the old names are missing to it.
    """
    match = _MIXTRAL.fullmatch(name)
    if match is None:
        return name
    inner = "gate" if match["e"] is None else f"experts.{match['e']}.{_MIXTRAL_ROLES[match['role']]}"
    return f"{match['block']}.mlp.{inner}{match['end'] or ''}"


def architecture_of(config: Mapping[str, Any]) -> str:
    """The class name in a config.json, or an empty text."""
    names = config.get("architectures") or [""]
    return str(names[0])


def module_in_memory(tensor: str, architecture: str) -> str:
    """The in-memory name of the module that holds a tensor (`a.b.weight`)."""
    return transformers_module(tensor.removesuffix(".weight"), architecture)


def transformers_module(module: str, architecture: str) -> str:
    """The module's name in memory; `architecture` is the class name of config.json."""
    for beginning, pairs in _RENAMED.items():
        if architecture.startswith(beginning):
            for old, new in pairs:
                module = module.replace(old, new)
            return module
    return module
