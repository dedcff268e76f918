"""Layouts: the ways in which codes become bytes."""

from __future__ import annotations

from bitwright.core.catalog import Catalog, Entry

LAYOUTS = Catalog(
    "layout",
    (
        Entry(
            "dense",
            "gpu_kernels.dense:LAYOUT",
            "dense little-endian bit stream, every row on a new 32-bit word (compressed-tensors >= 0.18, MLX)",
            traits={"widths": list(range(1, 9)), "word_bits": 32},
        ),
        Entry(
            "planes",
            "gpu_kernels.planes:LAYOUT",
            "nested bit planes, most significant first: the first k planes are the codes of k bits",
            traits={"widths": list(range(1, 9)), "word_bits": 32},
        ),
    ),
)
