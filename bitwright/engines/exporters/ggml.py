"""ggml types beside bitwright's formats, and the names of Hugging Face tensors in GGUF files.

Bits a weight and blocks: research/07 section 2 (ggml 0.25.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from bitwright.core.formats import Format


@dataclass(frozen=True)
class GgmlType:
    """`block`: the row length must be a multiple of it."""

    name: str
    bits: Fraction
    block: int


#: Formats whose grid, scale and size ggml holds exactly: weight = (code - 2^(b-1)) * fp16 scale, blocks of 32.
EXACT = {"int4-sym-g32": "q4_0", "int5-sym-g32": "q5_0", "int8-sym-g32": "q8_0", "bf16": "bf16", "fp16": "f16"}

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


#: (pattern over Hugging Face names, GGUF names); `{n}` is the block. Llama family, Mixtral, Qwen MoE, BERT.
_B = r"(?:model\.)?layers\.(?P<n>[0-9]+)\."
_E = r"(?:bert\.)?encoder\.layer\.(?P<n>[0-9]+)\."
_NAMES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), names)
    for pattern, names in (
        (_B + r"self_attn\.(?P<r>[qkv])_proj\.weight", ("blk.{n}.attn_{r}.weight",)),
        (_B + r"self_attn\.o_proj\.weight", ("blk.{n}.attn_output.weight",)),
        (_B + r"self_attn\.qkv_proj\.weight", ("blk.{n}.attn_qkv.weight",)),
        (_B + r"mlp\.(?P<r>gate|up|down)_proj\.weight", ("blk.{n}.ffn_{r}.weight",)),
        (_B + r"mlp\.gate_up_proj\.weight", ("blk.{n}.ffn_up.weight",)),
        (_B + r"block_sparse_moe\.experts\.[0-9]+\.w1\.weight", ("blk.{n}.ffn_gate_exps.weight",)),
        (_B + r"block_sparse_moe\.experts\.[0-9]+\.w2\.weight", ("blk.{n}.ffn_down_exps.weight",)),
        (_B + r"block_sparse_moe\.experts\.[0-9]+\.w3\.weight", ("blk.{n}.ffn_up_exps.weight",)),
        (_B + r"mlp\.experts\.[0-9]+\.(?P<r>gate|up|down)_proj\.weight", ("blk.{n}.ffn_{r}_exps.weight",)),
        (_B + r"[a-z_]+\.experts\.(?P<r>gate|up|down)_proj(?:\.weight)?\[[0-9]+\]", ("blk.{n}.ffn_{r}_exps.weight",)),
        (
            _B + r"[a-z_]+\.experts\.gate_up_proj(?:\.weight)?\[[0-9]+\]",
            ("blk.{n}.ffn_gate_exps.weight", "blk.{n}.ffn_up_exps.weight"),
        ),
        (_B + r"mlp\.shared_expert\.(?P<r>gate|up|down)_proj\.weight", ("blk.{n}.ffn_{r}_shexp.weight",)),
        (r"lm_head\.weight", ("output.weight",)),
        (_E + r"attention\.self\.query\.weight", ("blk.{n}.attn_q.weight",)),
        (_E + r"attention\.self\.key\.weight", ("blk.{n}.attn_k.weight",)),
        (_E + r"attention\.self\.value\.weight", ("blk.{n}.attn_v.weight",)),
        (_E + r"attention\.output\.dense\.weight", ("blk.{n}.attn_output.weight",)),
        (_E + r"intermediate\.dense\.weight", ("blk.{n}.ffn_up.weight",)),
        (_E + r"output\.dense\.weight", ("blk.{n}.ffn_down.weight",)),
    )
)


def gguf_names(name: str) -> tuple[str, ...]:
    """Names in a GGUF file of a unit (a stacked gate_up_proj is two tensors there); empty when llama.cpp has none."""
    for pattern, names in _NAMES:
        match = pattern.fullmatch(name)
        if match is not None:
            return tuple(text.format(**match.groupdict()) for text in names)
    return ()
