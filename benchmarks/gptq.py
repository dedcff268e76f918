"""GPTQ of one layer beside gptqmodel's own, on the same CPU, weight, Hessian and settings.

Usage: OMP_NUM_THREADS=2 python -m benchmarks.gptq [--size 4096] [--repeats 5]

The variable says how many threads each of both may use: torch, OpenBLAS and our own code read it. Settings: 4 bits
asymmetric, groups of 128, activation order with static groups, damping 1 %, blocks of 128. Runs are interleaved, the
ratio is that of medians. gptqmodel must be importable (it is no dependency: `make consumers` makes an environment that
has it, whose python runs this with PYTHONPATH=.); without it only our own time is told.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from bitwright.core.formats import parse_format
from gpu_kernels.threads import threads
from quantizers.gptq import Gptq

FORMAT = "int4-g128"
#: Seconds of the clock, and of all processors.
Spent = tuple[float, float]


def peer(weight: torch.Tensor, inputs: torch.Tensor) -> Callable[[], tuple[Spent, torch.Tensor]] | None:
    """One timed run of gptqmodel's GPTQ: (what the quantization took, its dense weights)."""
    try:
        from gptqmodel.quantization import QuantizeConfig
        from gptqmodel.quantization.gptq import GPTQ
    except ImportError:
        return None

    def run() -> tuple[Spent, torch.Tensor]:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = weight.clone()
        task = GPTQ(layer, QuantizeConfig(bits=4, group_size=128, sym=False, desc_act=True))
        task.quantizer.configure(perchannel=True)
        task.add_batch(inputs, torch.zeros(1))
        task.finalize_hessian()
        began, worked = time.perf_counter(), time.process_time()
        task.fasterquant(blocksize=128, percdamp=0.01, group_size=128, actorder=True, static_groups=True)
        return (time.perf_counter() - began, time.process_time() - worked), layer.weight.data.float()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(threads())
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(args.size, args.size, generator=generator) / args.size**0.5
    inputs = torch.randn(args.tokens, args.size, generator=generator) @ (mix + 0.5 * torch.eye(args.size))
    weight = torch.randn(args.size, args.size, generator=generator) * 0.02
    hessian = (inputs.T.double() @ inputs.double()).numpy()
    format, theirs = parse_format(FORMAT), peer(weight, inputs)
    seconds: dict[str, list[Spent]] = {"ours": [], "gptqmodel": []}
    errors: dict[str, float] = {}
    for _ in range(args.repeats):
        began, worked = time.perf_counter(), time.process_time()
        made = Gptq().quantize(weight.numpy(), format, hessian=hessian)
        seconds["ours"].append((time.perf_counter() - began, time.process_time() - worked))
        errors["ours"] = output_error(weight.numpy() - made.dequantize(), hessian)
        if theirs is not None:
            spent, dense = theirs()
            seconds["gptqmodel"].append(spent)
            errors["gptqmodel"] = output_error(weight.numpy() - dense.numpy(), hessian)
    for name, found in seconds.items():
        if found:
            wall, work = middle(found)
            print(f"{name:10} {wall:8.2f} s ({work:.2f} s of processors)  output error {errors[name]:.6g}  {found}")
    if seconds["gptqmodel"]:
        wall, work = (a / b for a, b in zip(middle(seconds["ours"]), middle(seconds["gptqmodel"]), strict=True))
        each = ", ".join(f"{a[0] / b[0]:.3f}" for a, b in zip(seconds["ours"], seconds["gptqmodel"], strict=True))
        print(f"{threads()} threads: ratio {wall:.3f} (each repeat {each}), of processors' seconds {work:.3f}")


def middle(found: list[Spent]) -> Spent:
    wall, work = (statistics.median(one) for one in zip(*found, strict=True))
    return wall, work


def output_error(delta: np.ndarray, hessian: np.ndarray) -> float:
    """tr(dW H dW')."""
    return float(np.einsum("ri,ri->", delta @ hessian, delta))


if __name__ == "__main__":
    main()
