"""ggml types beside bitwright's formats, and the names of Hugging Face tensors in GGUF files.

Bits a weight and blocks: research/07 section 2 (ggml 0.25.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from bitwright.core.formats import GGML_FORMATS, Format
from bitwright.core.ggml import GGML_INTS
from bitwright.core.gguf_names import gguf_places


@dataclass(frozen=True)
class GgmlType:
    """`block`: the row length must be a multiple of it."""

    name: str
    bits: Fraction
    block: int


#: Formats that ggml holds exactly, and its name of each.
EXACT = {
    **GGML_INTS,
    "bf16": "bf16",
    "fp16": "f16",
    **{name: name for name in GGML_FORMATS},
}

#: Types that need no importance matrix, narrowest first; equal sizes in order of preference.
NEAREST = (
    GgmlType("q2_k", Fraction(21, 8), 256),
    GgmlType("q3_k", Fraction(55, 16), 256),
    GgmlType("q4_k", Fraction(9, 2), 256),
    GgmlType("iq4_nl", Fraction(9, 2), 32),
    GgmlType("q5_k", Fraction(11, 2), 256),
    GgmlType("q5_0", Fraction(11, 2), 32),
    GgmlType("q6_k", Fraction(105, 16), 256),
    GgmlType("q8_0", Fraction(17, 2), 32),
)


def nearest(format: Format, shape: tuple[int, ...]) -> GgmlType | None:
    """The type nearest in true bits a weight among those whose block divides the rows; of two as near, the larger."""
    fitting = [kind for kind in NEAREST if shape[-1] % kind.block == 0]
    bits = format.bits_per_weight(shape)
    return min(fitting, key=lambda kind: (abs(kind.bits - bits), -kind.bits), default=None)


#: Units without a place in files that llama.cpp reads, but with a name in its own conversion of fused models.
_FUSED = re.compile(r"(?:model\.)?layers\.(?P<n>[0-9]+)\.(?:self_attn\.(?P<qkv>qkv_proj)|mlp\.gate_up_proj)\.weight")
_STACKED = re.compile(r"(?P<tensor>.+)\[(?P<index>[0-9]+)\]")


def gguf_names(name: str) -> tuple[str, ...]:
    """Names in a GGUF file of a unit (a stacked gate_up_proj is two tensors there); empty when llama.cpp has none."""
    fused = _FUSED.fullmatch(name)
    if fused is not None:
        return (f"blk.{fused['n']}.{'attn_qkv' if fused['qkv'] else 'ffn_up'}.weight",)
    stacked = _STACKED.fullmatch(name)
    places = gguf_places(name) if stacked is None else gguf_places(stacked["tensor"], int(stacked["index"]))
    return tuple(place.name for place in places)
