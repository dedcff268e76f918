"""Module names as transformers 5 has them in memory, which are what `targets` must name.

For most architectures a tensor's module is its name without `.weight`. Vision transformers were renamed inside
transformers 5 while their checkpoints keep the old names, which the loader translates (its conversion_mapping, entry
ViTModel); only `targets` and `ignore` need the new ones.
"""

from __future__ import annotations

#: (old part of the name, new part), applied in this order, by model_type.
_VIT = (
    ("encoder.layer.", "layers."),
    ("attention.query", "q_proj"),
    ("attention.key", "k_proj"),
    ("attention.value", "v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
_RENAMED = {"vit": _VIT, "deit": _VIT, "vit_msn": _VIT}


def module_of(tensor: str) -> str:
    """`a.b.weight` -> `a.b`."""
    return tensor.removesuffix(".weight")


def target_name(tensor: str, model_type: str) -> str:
    """The in-memory name of the module that holds a tensor."""
    name = module_of(tensor)
    for old, new in _RENAMED.get(model_type, ()):
        name = name.replace(old, new)
    return name
