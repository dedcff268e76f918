"""A copy of a trained Llama that computes the same, with outlier channels as large models have them.

Some gains of every norm are multiplied by a power of two and the columns that read them divided by it: exact in float16
but for weights so small that they lose their last bits. Small models grow no such channels by themselves, and BAQ and
SliM-LLM were made for them (research/01 section 0).

Usage: python -m tests.models.outliers SOURCE OUT
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

CHANNELS, FACTOR, SEED = 6, 8.0, 0
#: Norm of a layer -> the linears that read it.
READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def with_outliers(source: Path, out: Path, *, channels: int = CHANNELS, factor: float = FACTOR) -> Path:
    """Writes the copy to `out`: the same channels in all layers, next to each other."""
    shutil.copytree(source, out)
    tensors = load_file(out / "model.safetensors")
    width = len(tensors["model.norm.weight"])
    first = np.random.default_rng(SEED).integers(0, width - channels)
    chosen = np.arange(first, first + channels)

    def scale(norm: str, readers: list[str]) -> None:
        tensors[norm] = tensors[norm].copy()
        tensors[norm][chosen] *= np.float16(factor)
        for name in readers:
            tensors[name] = tensors[name].copy()
            tensors[name][:, chosen] /= np.float16(factor)

    layers = sorted({name.split(".")[2] for name in tensors if name.startswith("model.layers.")})
    for layer in layers:
        for norm, readers in READERS.items():
            prefix = f"model.layers.{layer}."
            scale(f"{prefix}{norm}.weight", [f"{prefix}{reader}.weight" for reader in readers])
    scale("model.norm.weight", ["lm_head.weight"])
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


if __name__ == "__main__":
    with_outliers(Path(sys.argv[1]), Path(sys.argv[2]))
