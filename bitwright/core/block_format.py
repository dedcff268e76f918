"""Formats whose rows are cut in blocks of bytes that hold codes and scales together: ggml's types, and small floats.

A row of `in` weights takes ceil(in / block) blocks; a last short block is padded with zeros and stored whole. Block
sizes and bytes: research/07 section 2 (ggml), OCP Microscaling Formats 1.0 section 5.2 (mx), QLoRA (nf4: 16 quantiles
of a normal distribution; float16 scale), NVIDIA's NVFP4 (16 elements, an e4m3 scale, a float32 scale a tensor).
Byte layouts: docs/packed.md section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from bitwright.core.format_base import Format, Part, Shape, Storage, matrix

#: Beside the blocks: nothing, a float32 scale for each output row, or one for the matrix.
OUTER_BITS = 32


@dataclass(frozen=True)
class BlockFormat(Format):
    """`layout`: how a block's bytes are arranged (gpu_kernels.block_layouts). outer: "", "row" or "tensor"."""

    name: str
    code_bits: int
    block: int
    block_bytes: int
    family: str
    outer: str = ""

    @property
    def bits(self) -> Fraction:  # type: ignore[override]
        return Fraction(self.code_bits)

    @property
    def layout(self) -> str:
        """nf4 of every group size is one layout."""
        return self.name.partition("-")[0] if self.name.startswith("nf4") else self.name

    def blocks(self, inputs: int) -> int:
        """Blocks of a row."""
        return -(-inputs // self.block)

    def row_bytes(self, inputs: int) -> int:
        """Bytes of a row's blocks."""
        return self.blocks(inputs) * self.block_bytes

    def outer_scales(self, out: int, inputs: int) -> int:
        """float32 scales beside the blocks."""
        if not out or not inputs:
            return 0
        return {"": 0, "row": out, "tensor": 1}[self.outer]

    def storage(self, shape: Shape) -> Storage:
        count, out, inputs = matrix(shape)
        blocks, padded = out * self.blocks(inputs), out * self.blocks(inputs) * self.block
        payload = out * inputs * self.code_bits
        scales = blocks * (self.block_bytes * 8 - self.block * self.code_bits)
        scales += self.outer_scales(out, inputs) * OUTER_BITS
        return Storage(count * payload, count * scales, 0, count * (padded * self.code_bits - payload))

    def parts(self, out: int, inputs: int) -> tuple[Part, ...]:
        parts = (Part(".blocks", "U8", (out, self.row_bytes(inputs))),)
        scales = self.outer_scales(out, inputs)
        return (*parts, Part(".scales", "F32", (scales, 1))) if self.outer else parts

    def describe(self, shape: Shape = (4096, 4096)) -> dict[str, object]:
        return {**super().describe(shape), "family": self.family, "group": self.block}


def _ggml(name: str, code_bits: int, block: int, block_bytes: int) -> BlockFormat:
    return BlockFormat(name, code_bits, block, block_bytes, "ggml")


GGML_FORMATS = {
    f.name: f
    for f in (
        _ggml("q2_k", 2, 256, 84), _ggml("q3_k", 3, 256, 110), _ggml("iq4_xs", 4, 256, 136),
        _ggml("q4_k", 4, 256, 144), _ggml("iq4_nl", 4, 32, 18), _ggml("q4_0", 4, 32, 18), _ggml("q4_1", 4, 32, 20),
        _ggml("q5_k", 5, 256, 176), _ggml("q5_0", 5, 32, 22), _ggml("q5_1", 5, 32, 24),
        _ggml("q6_k", 6, 256, 210), _ggml("q8_0", 8, 32, 34),
    )
}  # fmt: skip


def nf4(group: int) -> BlockFormat:
    """nf4 with a float16 scale for every `group` weights; 64 is QLoRA's and needs no ending."""
    name = "nf4" if group == NF4_GROUP else f"nf4-g{group}"
    return BlockFormat(name, 4, group, 2 + -(-group // 2), "float")


#: QLoRA section 3: blocks of 64.
NF4_GROUP = 64
FLOAT_BLOCKS = {
    f.name: f
    for f in (
        BlockFormat("mxfp4", 4, 32, 17, "float"),
        nf4(NF4_GROUP),
        BlockFormat("nvfp4", 4, 16, 9, "float", "tensor"),
        BlockFormat("fp8-e4m3", 8, 1, 1, "float", "row"),
        BlockFormat("fp8-e5m2", 8, 1, 1, "float", "row"),
        BlockFormat("mxfp8", 8, 32, 33, "float"),
    )
}
