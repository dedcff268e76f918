"""ViT and DeiT: image transformers with a convolution for the patches and a linear head."""

from __future__ import annotations

from bitwright.models.architectures.rules import BIAS, NORM, Architecture, Keep, Linear, heads

PREFIX = r"(?:vit\.|deit\.)?"
BLOCK = r"(?P<block>" + PREFIX + r"encoder\.layer\.(?P<layer>[0-9]{1,6}))\."


def _linear(tail: str, **families: str) -> Linear:
    return Linear(BLOCK + tail.replace(".", r"\.") + r"\.weight", tail, families)


VIT = Architecture(
    name="vit",
    model_types=("vit", "deit"),
    tied_default=False,
    rules=(
        *(_linear(f"attention.attention.{role}", qkv="{block}.attention.qkv") for role in ("query", "key", "value")),
        _linear("attention.output.dense"),
        _linear("intermediate.dense"),
        _linear("output.dense"),
        Linear(PREFIX + r"pooler\.dense\.weight", "pooler.dense"),
        *heads("classifier", "cls_classifier", "distillation_classifier"),
        Keep(
            PREFIX + r"embeddings\.patch_embeddings\.projection\.weight",
            "patch_embedding",
            "a convolution over pixels, applied once",
        ),
        Keep(PREFIX + r"embeddings\.position_embeddings", "position_embedding", "added, not multiplied"),
        Keep(PREFIX + r"embeddings\.(?:cls|mask|distillation)_token", "token", "a learned vector, added once"),
        NORM,
        BIAS,
    ),
)
