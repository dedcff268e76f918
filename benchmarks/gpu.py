"""The GPU kernels against the speed of the GPU's memory: `python -m benchmarks.gpu [--quick] [--json FILE]`.

First every kernel, width and stored type must give the CPU's bytes on fresh random inputs. Then each is timed with
events of the device: bytes that it must read and write, over its time, over the same of a device-to-device copy of a
GiB timed in between. Medians of `--repeats` rounds through all steps. Needs a GPU and bitwright[cuda].
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from gpu_kernels import cuda
from gpu_kernels.gpu import Gpu, Memory, asked
from tests.kernels.gpu_cases import Shape, as_type, check_fused, check_given_scales

#: Bar of the packing goal: fraction of the copy's speed, quantize and pack of bfloat16.
BAR = 0.85
#: Bytes of the weights, columns of a row, weights of a group.
SIZE, COLUMNS, GROUP = 1 << 30, 8192, 128
WIDTHS = tuple(range(1, 9))
#: Rows of the table: kernel, `symmetric` (2: with corrected scales).
KERNELS = {
    "quantize, scales given": ("quantize", 0),
    "round to nearest, asymmetric": ("rtn", 0),
    "round to nearest, symmetric": ("rtn", 1),
    "round to nearest, corrected": ("rtn", 2),
    "dequantize to fp32": ("dequantize", 0),
}
#: Rows, columns and group of the matrices that are checked.
GIVEN = ((3, 399, 50), (2, 96, 500), (300, 1056, 352), (33, 2048, 128), (7, 64, 32))
FUSED = ((33, 2048, 128), (5, 8192, 4096), (61, 96, 32))
ITEM = {"f32": 4, "f16": 2, "bf16": 2}


def compiled(arch: int, compiler: cuda.Compiler, widths: tuple[int, ...]) -> float:
    """Seconds that it took to fill the cubin cache, a process for each width."""
    start = time.perf_counter()
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for made in [pool.submit(cuda.cubin, arch, compiler, defines=cuda.width_only(b)) for b in widths]:
            made.result()
    return time.perf_counter() - start


def checked(gpu: Gpu, widths: tuple[int, ...], rounds: int) -> int:
    """How many fresh random matrices gave the CPU's bytes; raises AssertionError at the first that does not."""
    seed = secrets.randbits(30)
    cases = 0
    for index in range(rounds):
        for bits in widths:
            for dtype in cuda.TYPES:
                for rows, columns, group in (
                    (3, 399, 50),
                    (2, 96, 500),
                    (300, 1056, 352),
                    (33, 2048, 128),
                    (7, 64, 32),
                ):
                    check_given_scales(gpu.run, Shape(bits, dtype, rows, columns, group, 0, seed + index))
                for symmetric in (0, 1, 2):
                    for rows, columns, group in FUSED:
                        check_fused(gpu.run, Shape(bits, dtype, rows, columns, group, symmetric, seed + index))
                cases += len(GIVEN) + 3 * len(FUSED)
    return cases


class Matrix:
    """Random weights of one type on the device, scales, and room for every result."""

    def __init__(self, gpu: Gpu, dtype: str, size: int) -> None:
        self.gpu, self.dtype, self.weights = gpu, dtype, size // ITEM[dtype]
        rng = np.random.default_rng(0)
        groups = self.weights // GROUP
        small = as_type(rng.standard_normal((1, 1 << 24), np.float32), dtype)
        self.x, self.copy = Memory(size), Memory(size)
        for start in range(0, size, small.nbytes):
            self.x.write(small.reshape(-1)[: (size - start) // ITEM[dtype]], at=start)
        self.words, self.dense = Memory(self.weights), Memory(self.weights * 4)
        self.inverse, self.zero, self.scales, self.zeros = (Memory(groups * n) for n in (4, 4, 2, 1))
        self.given = {
            "inverse": rng.uniform(2, 200, groups).astype(np.float32),
            "scales": rng.uniform(0.005, 0.5, groups).astype(np.float16),
        }
        self.status = Memory(4)
        self.status.write(np.zeros(1, np.int32))

    def set_zeros(self, bits: int) -> None:
        zeros = np.random.default_rng(bits).integers(0, 1 << bits, self.weights // GROUP)
        for memory, array in ((self.zero, zeros.astype(np.float32)), (self.zeros, zeros.astype(np.uint8))):
            memory.write(array)
        self.inverse.write(self.given["inverse"])
        self.scales.write(self.given["scales"])

    def duplicate(self) -> None:
        """The copy that everything is measured by: a read and a write of `size` bytes each."""
        from cuda.bindings import driver

        stream = driver.CUstream(int(self.gpu.stream.handle))
        asked(driver.cuMemcpyDtoDAsync(self.copy.address, self.x.address, self.x.size, stream))

    def run(self, kind: str, symmetric: int, bits: int) -> None:
        zeros = None if kind == "rtn" and symmetric else self.zeros
        held = {"words": self.words, "scales": self.scales, "zeros": zeros, "status": self.status}
        if kind == "dequantize":
            held["dense"] = self.dense
        else:
            held |= {"x": self.x, "inverse": self.inverse, "zero": self.zero}
        pointers = {name: memory.address for name, memory in held.items() if memory is not None}
        arguments = cuda.Arguments(
            **pointers, rows=self.weights // COLUMNS, columns=COLUMNS, group=GROUP, symmetric=symmetric
        )
        self.gpu.launch(kind, self.dtype, bits, arguments)

    def bytes_moved(self, kind: str, symmetric: int, bits: int) -> int:
        groups, words = self.weights // GROUP, self.weights * bits // 8
        dense = self.weights * (4 if kind == "dequantize" else ITEM[self.dtype])
        parameters = {"quantize": 8, "dequantize": 3, "rtn": 2 if symmetric else 3}[kind]
        return dense + words + groups * parameters

    def free(self) -> None:
        for memory in (self.x, self.copy, self.words, self.dense, self.inverse, self.zero, self.scales, self.zeros):
            memory.free()
        self.status.free()


def measure(
    gpu: Gpu, dtype: str, size: int, repeats: int, widths: tuple[int, ...], names: list[str]
) -> tuple[float, dict[str, dict[int, float]]]:
    """(bytes a second of the copy, for each kernel and width its bytes a second over that)."""
    matrix = Matrix(gpu, dtype, size)
    ratios: dict[str, dict[int, float]] = {name: {} for name in names}
    copies: list[float] = []
    for bits in widths:
        matrix.set_zeros(bits)
        steps: list[Callable[[], None]] = [matrix.duplicate]
        steps += [partial(matrix.run, *KERNELS[name], bits) for name in names]
        gpu.milliseconds(steps)
        times = list(zip(*(gpu.milliseconds(steps) for _ in range(repeats)), strict=True))
        copy = statistics.median(times[0])
        copies.append(copy)
        for name, taken in zip(names, times[1:], strict=True):
            speed = matrix.bytes_moved(*KERNELS[name], bits) / statistics.median(taken)
            ratios[name][bits] = speed / (2 * size / copy)
    matrix.free()
    return 2 * size / statistics.median(copies) * 1e3, ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="bfloat16 only, one round of checks")
    parser.add_argument("--rounds", type=int, default=3, help="checks of every kernel, width and type")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--types", nargs="+", choices=cuda.TYPES)
    parser.add_argument("--unchecked", action="store_true", help="times only")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    widths = tuple(options.widths)
    gpu = Gpu()
    took = compiled(gpu.arch, gpu.compiler, widths)
    print(f"{gpu.name}, {gpu.compiler.version} (compiled in {took:.1f} s)", flush=True)
    if not options.unchecked:
        cases = checked(gpu, widths, 1 if options.quick else options.rounds)
        print(f"{cases} runs over random matrices gave the CPU's bytes", flush=True)
    found: dict[str, object] = {"gpu": gpu.name, "compiler": gpu.compiler.version}
    print("bytes read and written a second, over the copy's; widths", *widths)
    names = list(KERNELS)
    for dtype in options.types or (("bf16",) if options.quick else ("bf16", "f16", "f32")):
        speed, ratios = measure(gpu, dtype, SIZE, options.repeats, widths, names)
        found[dtype] = {"copy": speed, **ratios}
        print(f"{dtype}: the copy moves {speed / 1e9:.0f} GB/s")
        for name, of_width in ratios.items():
            print(f"  {name:30}", *(f"{ratio:5.2f}" for ratio in of_width.values()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
