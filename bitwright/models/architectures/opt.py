"""OPT: separate queries, keys and values, a plain two-matrix MLP, learned positions, a head tied to the embedding."""

from __future__ import annotations

from bitwright.models.architectures.llama import HEAD
from bitwright.models.architectures.rules import BIAS, NORM, Architecture, Keep, Linear

_BLOCK = r"(?P<block>(?:model\.)?decoder\.layers\.(?P<layer>[0-9]{1,6}))\."
_DECODER = r"(?:model\.)?decoder\."

OPT = Architecture(
    name="opt",
    model_types=("opt",),
    tied_default=True,
    rules=(
        *(
            Linear(
                _BLOCK + rf"self_attn\.{role}_proj\.weight", f"self_attn.{role}_proj", {"qkv": "{block}.self_attn.qkv"}
            )
            for role in ("q", "k", "v")
        ),
        Linear(_BLOCK + r"self_attn\.out_proj\.weight", "self_attn.out_proj"),
        Linear(_BLOCK + r"fc1\.weight", "fc1"),
        Linear(_BLOCK + r"fc2\.weight", "fc2"),
        Linear(_DECODER + r"project_(?P<end>in|out)\.weight", "project_{end}"),
        *HEAD,
        Keep(
            _DECODER + r"embed_(?:tokens|positions)\.weight",
            "embedding",
            "looked up by row, not multiplied; engines keep it in 16 bits",
        ),
        NORM,
        BIAS,
    ),
)
