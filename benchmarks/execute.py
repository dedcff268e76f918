"""`execute` by rounding against reading and writing the same bytes: `python -m benchmarks.execute [--mib 512]`.

A checkpoint of a Llama of the given size is generated in a temporary folder. Each repeat writes it as `packed` and, in
turn, reads the source and writes as many bytes as the packed one has, in pieces, to the disk. Both sides count
removing what they wrote; ours also reading back and comparing. Medians of wall and CPU time, and the largest resident
memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from quantizers.containers.tensorfile import TensorSpec, lay_out

HIDDEN, FEED, WORDS = 2048, 5632, 16000
PIECE = 1 << 24


def generate(folder: Path, mib: int) -> None:
    """A Llama with bfloat16 weights of about `mib` MiB."""
    shapes = {"model.embed_tokens.weight": (WORDS, HIDDEN), "lm_head.weight": (WORDS, HIDDEN)}
    layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * FEED
    count = max(1, (mib * 2**19 - 2 * WORDS * HIDDEN) // layer)
    for i in range(count):
        shapes |= {f"model.layers.{i}.self_attn.{role}_proj.weight": (HIDDEN, HIDDEN) for role in "qkvo"}
        shapes |= {f"model.layers.{i}.mlp.{role}_proj.weight": (FEED, HIDDEN) for role in ("gate", "up")}
        shapes[f"model.layers.{i}.mlp.down_proj.weight"] = (HIDDEN, FEED)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": FEED,
        "num_hidden_layers": count, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": WORDS,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    layout = lay_out("model.safetensors", [TensorSpec(n, "BF16", s) for n, s in shapes.items()], {"format": "pt"})
    normal = np.random.default_rng(0).standard_normal(1 << 22, dtype=np.float32) * np.float32(0.02)
    piece = (normal.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    with (folder / layout.name).open("wb") as file:
        file.write(layout.header)
        left = layout.size - len(layout.header)
        while left:
            left -= file.write(piece[: min(left, len(piece))])


def copy(source: Path, size: int, target: Path) -> None:
    """Read a file, and write `size` bytes to another, to the disk."""
    piece, left = bytearray(PIECE), size
    with source.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass
    with target.open("wb") as file:
        while left:
            left -= file.write(memoryview(piece)[: min(left, PIECE)])
        file.flush()
        os.fsync(file.fileno())
    target.unlink()


def timed(step: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(arguments: list[str] | None = None) -> int:
    """Measure and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--format", default="int4-g64")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "model", options.mib)
        source = open_model(str(folder / "model"))
        inventory = inspect(source)
        formats = [parse_format(options.format)] * len(inventory.units)
        container = CONTAINERS.load("packed")
        weights, size = folder / "model" / "model.safetensors", container.predict(inventory, formats).file_bytes

        def write() -> None:
            container.write(source, inventory, formats, folder / "out")
            shutil.rmtree(folder / "out")

        write()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pairs = [(timed(write), timed(lambda: copy(weights, size, folder / "copy"))) for _ in range(options.repeats)]
    wall, cpu = (statistics.median(ours[i] / base[i] for ours, base in pairs) for i in (0, 1))
    largest = max(unit.shape[0] * unit.shape[1] * 2 for unit in inventory.units) / 2**20
    resident = max(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024
    print(f"{options.format}, {weights.name} of {options.mib} MiB, {options.repeats} interleaved repeats")
    print(f"execute over reading and writing the same bytes: wall {wall:.2f}, CPU {cpu:.2f}")
    best = min(ours[0] for ours, _ in pairs) / min(base[0] for _, base in pairs)
    print(f"the least loaded of all repeats of each: wall {best:.2f}")
    print(f"resident at most {resident:.0f} MiB; largest tensor {largest:.0f} MiB, bound {3 * largest + 512:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
