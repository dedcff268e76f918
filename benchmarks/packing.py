"""Packing against the speed of memory: `python -m benchmarks.packing [--size 4096] [--group 64] [--ggml LIBRARY]`.

Every figure is a ratio to memcpy of the same buffer measured in the same run: rates of a shared machine swing by 2x,
ratios much less (research/07 section 3). Steps are interleaved, one thread; medians of `--repeats`, in CPU time.
`--ggml` compares block types with ggml's own C code (a library built from its sources), in speed and weighted error.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.block_format import FLOAT_BLOCKS, GGML_FORMATS
from gpu_kernels import kernels, reference, threads
from gpu_kernels.block_layouts import LAYOUTS
from gpu_kernels.block_reference import PLAIN
from gpu_kernels.blocks import dequantize_blocks, quantize_blocks
from gpu_kernels.library import backend
from quantizers.containers.memory import kept_memory

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


def measure(size: int, repeats: int, group: int) -> list[dict[str, Any]]:
    """One row a width: ratios to memcpy of the input (quantize, pack) or of the output (unpack, dequantize)."""
    data = inputs(size)
    copies = {name: np.empty_like(array) for name, array in data.items()}
    rows = []
    for bits in range(1, 9):
        groups = size // group
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
            "unpack+dequantize": partial(kernels.unpack_dequantize, words, scales, None, bits, group, size),
        }
        for name, array in data.items():
            steps[f"copy {name}"] = partial(np.copyto, copies[name], array)
            steps[f"quantize+pack {name}"] = partial(kernels.quantize_pack, array, inverse, zero, bits, group)
        for name, array in data.items():
            steps[f"rtn+pack {name}"] = partial(kernels.rtn_pack, array, bits, False, group, False)
            steps[f"rtn+pack sym {name}"] = partial(kernels.rtn_pack, array, bits, True, group, bits <= 4)
            if bits == 1:
                steps[f"rtn+pack sign {name}"] = partial(kernels.rtn_pack, array, 1, True, group, True, signs=True)
        times = interleaved(steps, repeats)
        rows.append({"bits": bits, "gb_s_copy": data["fp32"].nbytes / times["copy fp32"] / 1e9, **ratios(times)})
    return rows


def ratios(times: dict[str, float]) -> dict[str, float]:
    """memcpy time over the step's time."""
    base = {"pack": "codes", "unpack": "codes", "unpack+dequantize": "dense"}
    for step in ("quantize+pack", "rtn+pack", "rtn+pack sym", "rtn+pack sign"):
        base |= {f"{step} {name}": name for name in ("fp32", "fp16", "bf16")}
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


def blocks(size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Quantize and dequantize of every block format over memcpy of the float32 side."""
    weight = inputs(size)["fp32"][: max(8, size // 8)] * np.float32(0.05)
    spare, found = np.empty_like(weight), {}
    for name in (*GGML_FORMATS, *FLOAT_BLOCKS):
        format = {**GGML_FORMATS, **FLOAT_BLOCKS}[name]
        data, scales = quantize_blocks(weight, format)
        steps: dict[str, Callable[[], Any]] = {
            "copy": partial(np.copyto, spare, weight),
            "quantize": partial(quantize_blocks, weight, format),
            "dequantize": partial(dequantize_blocks, data, scales, format, size),
        }
        times = interleaved(steps, repeats)
        found[name] = {step: times["copy"] / times[step] for step in ("quantize", "dequantize")}
    return found


def against_ggml(path: Path, size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Our time and weighted error over ggml's, by type; weights of errors as block_search has them."""
    import gguf

    native = ctypes.CDLL(str(path), mode=os.RTLD_LAZY)
    native.ggml_quantize_chunk.restype = ctypes.c_size_t
    native.ggml_quantize_chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    rng, found = np.random.default_rng(0), {}
    for name, format in GGML_FORMATS.items():
        weight = (rng.standard_t(4, (max(8, size // 16), size)) * 0.05).astype(np.float32)
        kind = int(gguf.GGMLQuantizationType[name.upper()])
        theirs = np.empty((weight.shape[0], size // format.block * format.block_bytes), np.uint8)
        arguments = (kind, weight.ctypes.data, theirs.ctypes.data, 0, *weight.shape, None)
        steps: dict[str, Callable[[], Any]] = {
            "theirs": partial(native.ggml_quantize_chunk, *arguments),
            "ours": partial(quantize_blocks, weight, format),
        }
        times = interleaved(steps, repeats)
        ours = quantize_blocks(weight, format)[0]
        errors = [weighted_error(weight, dequantize_blocks(data, None, format, size), name) for data in (ours, theirs)]
        equal = float(np.array_equal(ours, theirs))
        found[name] = {"speed": times["theirs"] / times["ours"], "error": errors[0] / errors[1], "equal": equal}
    return found


def weighted_error(weight: np.ndarray, dense: np.ndarray, name: str) -> float:
    groups = weight.reshape(-1, LAYOUTS[name].block // LAYOUTS[name].groups)
    magnitude = np.abs(groups)
    if name in PLAIN:
        importance = np.ones_like(groups)
    elif not LAYOUTS[name].affine:
        importance = groups * groups
    else:
        spread = np.sqrt((groups * groups).mean(axis=1, keepdims=True)) if LAYOUTS[name].bits > 2 else 0
        importance = magnitude + spread
    return float((importance * (dense.reshape(groups.shape) - groups) ** 2).sum(dtype=np.float64))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, and write the figures as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--ggml", type=Path, help="a libggml-base built from ggml's sources")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    threads.threads = lambda: 1  # type: ignore[assignment]  # the clock counts one thread
    with kept_memory():  # as in `execute`: the results' pages are there, as those of the copies are
        rows = measure(options.size, options.repeats, options.group)
    names = [name for name in rows[0] if name not in ("bits", "gb_s_copy")]  # those of one bit: signs too
    print(
        f"{backend()}, {options.size} x {options.size}, groups of {options.group}; speed over memcpy of the same buffer"
    )
    print("bits  " + "  ".join(names))
    for row in rows:
        print(f"{row['bits']:>4}  " + "  ".join(f"{row.get(name, float('nan')):>{len(name)}.2f}" for name in names))
    library = against_library(options.size, options.repeats)
    print("over compressed-tensors:", {k: round(v, 1) for k, v in library.items()})
    with kept_memory():
        made = blocks(options.size, options.repeats)
    for name, ratio in made.items():
        print(f"{name:10} quantize {ratio['quantize']:.2f}, dequantize {ratio['dequantize']:.2f} of memcpy")
    ggml = against_ggml(options.ggml, options.size, options.repeats) if options.ggml else {}
    for name, ratio in ggml.items():
        print(f"{name:10} {ratio['speed']:.1f} x ggml's speed, {ratio['error']:.3f} of its weighted error")
    if options.out is not None:
        more = {"blocks": made, "ggml": ggml}
        report = {
            **more,
            "backend": backend(),
            "size": options.size,
            "group": options.group,
            "rows": rows,
            "over_library": library,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
