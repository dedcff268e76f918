"""Scoring, GPTQ, the search of scales and the solver's pass on a GPU beside the CPU, in one run.

Usage: python -m benchmarks.gpu_torch [--parts copy,gptq,table,scoring] [--size 4096] [--units 1e7,1e8] [--formats 4,8]
           [--models DIR,DIR] [--tokens 8192] [--repeats 5] [--threads N] [--out report.json]

copy: a device-to-device copy of 4 GiB, bytes read and written; what the other ratios stand beside. gptq: one layer with
4 bits in groups of 128, and the search of scales by the layer's second moments. table: the solver's pass over a float32
table that lies on the GPU, beside that copy and the compiled pass on the host's cores. scoring: seconds of the default
metric, opening the model included, and the most memory the GPU held.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gptq import FORMAT, output_error
from bitwright.core.formats import parse_format
from bitwright.settings import load_settings
from quantizers.catalog import QUANTIZERS
from solvers import cuda_pass, native, torch_pass, torch_visit

MENU = ("int2-g64", "int3-g64", "int4-g64", "int5-g64", "int6-g64", "int8-g64")
#: Bits a weight of each format, scales included, times 1000: the rates of a table.
RATES = {k: np.array([1000 * bits + 250 for bits in range(2, 2 + k)], np.int64) for k in (4, 8, 12)}
Found = dict[str, Any]


@contextmanager
def on(device: str) -> Iterator[None]:
    """The block computes on `device`."""
    os.environ["BITWRIGHT_DEVICE"] = device
    load_settings.cache_clear()
    try:
        yield
    finally:
        del os.environ["BITWRIGHT_DEVICE"]
        load_settings.cache_clear()


def seconds(work: Callable[[], object], device: str, repeats: int, warm: int = 1) -> list[float]:
    """Wall time of each run, what the device was given to do included."""
    found = []
    for number in range(warm + repeats):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.get_device_module(device).synchronize()
        if number >= warm:
            found.append(time.perf_counter() - began)
    return found


def copy_rate(device: str, bytes_: int, repeats: int) -> float:
    """Bytes a second, read and written, of the fastest copy on the device."""
    source = torch.empty(bytes_, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2 * bytes_ / min(seconds(lambda: target.copy_(source), device, max(9, repeats), 3))


def layer(size: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights and second moments of correlated inputs, as benchmarks.gptq makes them; the product where it is fast."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(size, size, generator=generator) / size**0.5 + 0.5 * torch.eye(size)
    inputs = torch.randn(2 * size, size, generator=generator).to(device) @ mix.to(device)
    weight = torch.randn(size, size, generator=generator) * 0.02
    return weight.numpy(), (inputs.T.double() @ inputs.double()).cpu().numpy()


def gptq(device: str, size: int, repeats: int) -> Iterator[Found]:
    weight, hessian = layer(size, device)
    for quantizer, told in (("gptq", {}), ("gptq", {"scales": "clip"}), ("clip", {"error": "hessian"})):
        row: Found = {"part": "gptq", "what": " ".join([quantizer, *told.values()]), "size": size, "format": FORMAT}
        for place, runs in ((device, repeats), ("cpu", 1)):
            made: list[Any] = []

            def work(made: list[Any] = made, quantizer: str = quantizer, told: dict[str, str] = told) -> None:
                format = parse_format(FORMAT)
                made[:] = [QUANTIZERS.load(quantizer).quantize(weight, format, name="w", hessian=hessian, **told)]

            with on(place):
                spent = seconds(work, place, runs, warm=1 if place != "cpu" else 0)
            row[f"{place}_s"] = statistics.median(spent)
            row[f"{place}_error"] = output_error(weight - made[0].dequantize(), hessian)
            row[f"{place}_codes"] = made[0].codes
        codes = row.pop(f"{device}_codes"), row.pop("cpu_codes")
        row["same_codes"] = float(np.mean(codes[0] == codes[1]))
        row["times_faster"] = row["cpu_s"] / row[f"{device}_s"]
        row["error_ratio"] = row[f"{device}_error"] / row["cpu_error"]
        yield row


def table(device: str, n: int, k: int, uneven: bool, repeats: int, rate_of_copy: float, threads: int) -> Found:
    """Losses fall by about 4 a bit; float32 (n, k) on the device. The compiled pass on the host gets the same table."""
    generator = torch.Generator(device).manual_seed(k)
    weight = torch.exp(2 * torch.randn(n, device=device, generator=generator))
    loss = torch.empty(n, k, device=device)
    for j in range(k):
        noise = 0.7 + 0.6 * torch.rand(n, device=device, generator=generator)
        loss[:, j] = weight * 4.0**-j * noise
    del weight, noise
    sizes = torch.tensor([64, 128, 256, 4096], dtype=torch.int32, device=device)
    size = sizes[:1].expand(n)
    if uneven:
        size = sizes[torch.randint(0, 4, (n,), device=device, generator=generator)]
    rate = torch.from_numpy(RATES[k]).to(device)
    limit = int(int(size.sum()) * (3.5 * 1000 + 250))
    module = torch.get_device_module(device)
    module.reset_peak_memory_stats()
    before = module.memory_allocated()
    answers: list[Any] = [None]

    def work() -> None:
        answers[0] = None  # its choice does not count for the next one
        answers[0] = torch_pass.solve_table(loss, size, rate, limit)

    spent = seconds(work, device, repeats)
    peak = module.max_memory_allocated() - before
    ours, read = answers[0], loss.nbytes
    narrow = ours.slope * (1 - 1e-3), ours.slope * (1 + 1e-3)
    alone = min(seconds(lambda: torch_visit.fused_pass(loss, size, rate, *narrow), device, 3 * repeats))
    chosen = ours.choice.cpu().numpy()
    host = loss.cpu().numpy(), size.cpu().numpy().astype(np.int64)
    began = time.perf_counter()
    compiled = native.solve_table(host[0], limit, size=host[1], rate=RATES[k], threads=threads)
    there = time.perf_counter() - began
    best = min(spent)
    return {
        "part": "table", "n": n, "k": k, "sizes": "uneven" if uneven else "equal", "ms": 1e3 * best, "all_ms": spent,
        "table_bytes_a_second": read / best, "of_copy": read / best / rate_of_copy,
        "over_reading_the_table": best / (read / rate_of_copy), "pass_ms": 1e3 * alone,
        "pass_over_reading": alone / (read / rate_of_copy), "kernel": cuda_pass.takes(loss, size),
        "passes": ours.passes, "bytes_a_unit_beside": peak / n,
        "gap_of_loss": (ours.loss - ours.bound) / ours.loss, "same_choice": float(np.mean(chosen == compiled.choice)),
        "loss_over_cpus": ours.loss / compiled.loss - 1, "cost_within": bool(ours.cost <= limit), "cpu_ms": 1e3 * there,
    }  # fmt: skip


def scoring(device: str, folder: str, tokens: int, repeats: int) -> Found:
    from bitwright.models import inspect, open_model
    from sensitivity import calibration
    from sensitivity.scoring import score

    source = open_model(folder)
    inventory = inspect(source)
    data = calibration.load(None, source, inventory, scoring_tokens=tokens, confirming_tokens=1024)
    row: Found = {"part": "scoring", "model": Path(folder).name, "tokens": tokens, "formats": len(MENU)}
    tables = {}
    for place, runs in ((device, repeats), ("cpu", 1)):
        with on(place):
            module = None if place == "cpu" else torch.get_device_module(place)
            if module is not None:
                module.reset_peak_memory_stats()

            def work(place: str = place) -> None:
                tables[place] = score(source, inventory, MENU, calibration=data, seed=0)

            row[f"{place}_s"] = min(seconds(work, place, runs, warm=1 if place != "cpu" else 0))
            if module is not None:
                row["peak_mib"] = module.max_memory_allocated() / 2**20
    here, there = tables["cpu"].loss, tables[device].loss
    row["times_faster"] = row["cpu_s"] / row[f"{device}_s"]
    away = np.abs(there / here - 1)
    row["median_cell"], row["farthest_cell"] = float(np.median(away)), float(np.max(away))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default="copy,gptq,table,scoring")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--units", default="1e7,1e8")
    parser.add_argument("--formats", default="4,8")
    parser.add_argument("--copy-bytes", type=float, default=2**32)
    parser.add_argument("--models", default="tests/models/llama-stdlib,tests/models/mixtral-stdlib")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    parts, device, rows = args.parts.split(","), args.device, []

    def told(row: Found) -> None:
        rows.append(row)
        short = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
        print(json.dumps({key: value for key, value in short.items() if key != "all_ms"}), flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(rows, indent=1))

    name = torch.get_device_module(device).get_device_name(device)
    rate_of_copy = copy_rate(device, int(args.copy_bytes), args.repeats)
    told({
        "part": "copy", "device": name, "torch": torch.__version__, "threads": args.threads,
        "copy_bytes_a_second": rate_of_copy,
    })  # fmt: skip
    if "table" in parts:
        for n in (int(float(word)) for word in args.units.split(",")):
            for k in map(int, args.formats.split(",")):
                for uneven in (False, True):
                    told(table(device, n, k, uneven, args.repeats, rate_of_copy, args.threads))
    if "gptq" in parts:
        for row in gptq(device, args.size, args.repeats):
            told(row)
    if "scoring" in parts:
        for folder in args.models.split(","):
            told(scoring(device, folder, args.tokens, args.repeats))


if __name__ == "__main__":
    main()
