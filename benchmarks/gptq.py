"""GPTQ of one layer beside gptqmodel's own, on the same CPU, weight, Hessian and settings.

Usage: python -m benchmarks.gptq [--size 4096] [--repeats 5] [--threads 2]

Settings: 4 bits asymmetric, groups of 128, activation order with static groups, damping 1 %, blocks of 128. Runs are
interleaved, the ratio is that of medians. gptqmodel must be importable (it is no dependency: unpack its source beside a
folder with its needs and name both in PYTHONPATH); without it only our own time is told.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from bitwright.core.formats import parse_format
from quantizers.gptq import Gptq

FORMAT = "int4-g128"


def peer(weight: torch.Tensor, inputs: torch.Tensor) -> Callable[[], tuple[float, torch.Tensor]] | None:
    """One timed run of gptqmodel's GPTQ: (seconds of the quantization, its dense weights)."""
    try:
        from gptqmodel.quantization import QuantizeConfig
        from gptqmodel.quantization.gptq import GPTQ
    except ImportError:
        return None

    def run() -> tuple[float, torch.Tensor]:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = weight.clone()
        task = GPTQ(layer, QuantizeConfig(bits=4, group_size=128, sym=False, desc_act=True))
        task.quantizer.configure(perchannel=True)
        task.add_batch(inputs, torch.zeros(1))
        task.finalize_hessian()
        began = time.perf_counter()
        task.fasterquant(blocksize=128, percdamp=0.01, group_size=128, actorder=True, static_groups=True)
        return time.perf_counter() - began, layer.weight.data.float()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(args.size, args.size, generator=generator) / args.size**0.5
    inputs = torch.randn(args.tokens, args.size, generator=generator) @ (mix + 0.5 * torch.eye(args.size))
    weight = torch.randn(args.size, args.size, generator=generator) * 0.02
    hessian = (inputs.T.double() @ inputs.double()).numpy()
    format, theirs = parse_format(FORMAT), peer(weight, inputs)
    seconds: dict[str, list[float]] = {"ours": [], "gptqmodel": []}
    errors: dict[str, float] = {}
    for _ in range(args.repeats):
        began = time.perf_counter()
        made = Gptq().quantize(weight.numpy(), format, hessian=hessian)
        seconds["ours"].append(time.perf_counter() - began)
        errors["ours"] = output_error(weight.numpy() - made.dequantize(), hessian)
        if theirs is not None:
            spent, dense = theirs()
            seconds["gptqmodel"].append(spent)
            errors["gptqmodel"] = output_error(weight.numpy() - dense.numpy(), hessian)
    for name, found in seconds.items():
        if found:
            print(f"{name:10} {statistics.median(found):8.2f} s  output error {errors[name]:.6g}  {found}")
    if seconds["gptqmodel"]:
        print(f"ratio {statistics.median(seconds['ours']) / statistics.median(seconds['gptqmodel']):.3f}")


def output_error(delta: np.ndarray, hessian: np.ndarray) -> float:
    """tr(dW H dW')."""
    return float(np.einsum("ri,ri->", delta @ hessian, delta))


if __name__ == "__main__":
    main()
