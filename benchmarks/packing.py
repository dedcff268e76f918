"""Packing against the speed of memory: `python -m benchmarks.packing [--size 4096] [--out FILE]`.

Every figure is a ratio to memcpy of the same buffer measured in the same run: rates of a shared machine swing by 2x,
ratios much less (research/07 section 3). Steps are interleaved, the median of `--repeats` is taken, one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpu_kernels import kernels, reference
from gpu_kernels.library import backend

GROUP = 64
#: Bars of the packing goals: fraction of memcpy speed.
QUANTIZE_BAR, UNPACK_BAR, LIBRARY_BAR = 0.7, 0.5, 30.0


def interleaved(steps: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each step, all steps taken in turn; other load on the machine does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.thread_time()
            step()
            times[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def inputs(size: int) -> dict[str, np.ndarray]:
    weight = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    half = weight.astype(np.float16)
    return {"fp32": weight, "fp16": half, "bf16": (weight.view(np.uint32) >> 16).astype(np.uint16)}


def measure(size: int, repeats: int) -> list[dict[str, Any]]:
    """One row a width: ratios to memcpy of the input (quantize, pack) or of the output (unpack, dequantize)."""
    data = inputs(size)
    copies = {name: np.empty_like(array) for name, array in data.items()}
    rows = []
    for bits in range(1, 9):
        groups = size // GROUP
        inverse = np.full((size, groups), (1 << bits) / 8, np.float32)
        zero = np.full((size, groups), 1 << (bits - 1), np.float32)
        codes = np.random.default_rng(bits).integers(0, 1 << bits, (size, size)).astype(np.uint8)
        words, scales = kernels.pack(codes, bits), np.full((size, groups), 0.01, np.float16)
        spare, dense = np.empty_like(codes), np.empty_like(data["fp32"])
        steps: dict[str, Callable[[], Any]] = {
            "copy codes": partial(np.copyto, spare, codes),
            "copy dense": partial(np.copyto, dense, data["fp32"]),
            "pack": partial(kernels.pack, codes, bits),
            "unpack": partial(kernels.unpack, words, bits, size),
            "unpack+dequantize": partial(kernels.unpack_dequantize, words, scales, None, bits, GROUP, size),
        }
        for name, array in data.items():
            steps[f"copy {name}"] = partial(np.copyto, copies[name], array)
            steps[f"quantize+pack {name}"] = partial(kernels.quantize_pack, array, inverse, zero, bits, GROUP)
        if bits > 1:
            steps["rtn"] = partial(kernels.rtn_rows, data["fp32"], bits, False, GROUP, False)
            steps["rtn sym"] = partial(kernels.rtn_rows, data["fp32"], bits, True, GROUP, bits <= 4)
        times = interleaved(steps, repeats)
        rows.append({"bits": bits, "gb_s_copy": data["fp32"].nbytes / times["copy fp32"] / 1e9, **ratios(times)})
    return rows


def ratios(times: dict[str, float]) -> dict[str, float]:
    """memcpy time over the step's time."""
    base = {"pack": "codes", "unpack": "codes", "unpack+dequantize": "dense", "rtn": "fp32", "rtn sym": "fp32"}
    base |= {f"quantize+pack {name}": name for name in ("fp32", "fp16", "bf16")}
    return {step: times[f"copy {base[step]}"] / times[step] for step in base if step in times}


def against_library(size: int, repeats: int) -> dict[str, float]:
    """Our pack over compressed-tensors' own, by width; empty when it is not installed."""
    try:
        import torch
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    except ImportError:
        return {}
    torch.set_num_threads(1)
    found = {}
    for bits in range(1, 9):
        codes = np.random.default_rng(bits).integers(0, 1 << bits, (size, size)).astype(np.uint8)
        signed = torch.from_numpy((codes.astype(np.int16) - (1 << (bits - 1))).astype(np.int8))
        steps: dict[str, Callable[[], Any]] = {
            "theirs": partial(pack_to_int32, signed, bits),
            "numpy": partial(reference.pack, codes, bits),
            "ours": partial(kernels.pack, codes, bits),
        }
        times = interleaved(steps, repeats)
        found[str(bits)] = times["theirs"] / times["ours"]
        found[f"numpy {bits}"] = times["theirs"] / times["numpy"]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, and write the figures as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    rows = measure(options.size, options.repeats)
    names = [name for name in rows[-1] if name not in ("bits", "gb_s_copy")]
    print(f"{backend()}, {options.size} x {options.size}, groups of {GROUP}; speed over memcpy of the same buffer")
    print("bits  " + "  ".join(names))
    for row in rows:
        print(f"{row['bits']:>4}  " + "  ".join(f"{row.get(name, float('nan')):>{len(name)}.2f}" for name in names))
    library = against_library(options.size, options.repeats)
    print("over compressed-tensors:", {k: round(v, 1) for k, v in library.items()})
    if options.out is not None:
        report = {"backend": backend(), "size": options.size, "group": GROUP, "rows": rows, "over_library": library}
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
