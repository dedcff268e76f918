"""GPTQ of a checkpoint that does not fit in the memory of the process: calibrated, quantized, packed.

Usage: python -m benchmarks.execute_memory MODEL [--copies 3] [--times 17] [--limit-mib 620] [--tokens 16]
           [--quantizer gptq] [--format int4-g64] [--container packed]

Makes a wide and deep checkpoint of a trained model in bfloat16 (benchmarks/deep_models.py) in a temporary folder, then,
in a process whose data segment is limited by the kernel (RLIMIT_DATA) to --limit-mib: the moments of every unit's
inputs block by block, as `execute` gathers them for a model that does not fit, and the container with every unit in
--format. Prints the checkpoint's bytes, the limit, and the peak of resident memory (VmHWM, interpreter and torch
included) after each of the two. So few tokens make no good codes: what is measured here is memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 1 << 20


def status(member: str) -> int:
    """Bytes of this process as the kernel counts them."""
    found = re.search(rf"{member}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return 1024 * int(found[1]) if found else 0


def child(args: argparse.Namespace) -> None:
    """In the limited process. Prints one JSON line."""
    from bitwright.core.formats import parse_format
    from bitwright.models import inspect, open_model
    from bitwright.settings import Settings
    from quantizers.containers.catalog import CONTAINERS
    from sensitivity import calibration
    from worker.steps.context import Context
    from worker.steps.quantizing import make_quantizer, units_context

    resource.setrlimit(resource.RLIMIT_DATA, (args.limit_mib * MIB, args.limit_mib * MIB))
    before, start = status("VmData"), time.monotonic()
    source = open_model(str(args.model))
    inventory = inspect(source)
    parts = calibration.load(None, source, inventory, scoring_tokens=args.tokens, confirming_tokens=args.tokens)
    context = Context(Settings(state_dir=args.model / "state"))
    maker = make_quantizer(args.quantizer, source, inventory, parts, context)
    gathered, peak = time.monotonic() - start, status("VmHWM")
    formats = [parse_format(args.format)] * len(inventory.units)
    report = CONTAINERS.load(args.container).write(
        source, inventory, formats, args.model / "out",
        quantizer=args.quantizer, context=units_context(maker), context_key=maker.context_key,
    )  # fmt: skip
    largest = max(unit.elements for unit in inventory.units)
    blocks: dict[int | None, int] = {}
    for unit in inventory.units:
        blocks[unit.layer] = blocks.get(unit.layer, 0) + 4 * unit.elements
    answer = {
        "before": before, "gathered": gathered, "calibrated": peak, "written": status("VmHWM"),
        "seconds": time.monotonic() - start - gathered, "bytes": report.file_bytes, "weights": inventory.weights,
        "units": len(inventory.units), "largest": largest, "block": max(blocks.values()),
        "moments": sum(path.stat().st_size for path in (args.model / "state").rglob("*.npy")),
    }  # fmt: skip
    print(json.dumps(answer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--times", type=int, default=17)
    parser.add_argument("--limit-mib", type=int, default=620)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--quantizer", default="gptq")
    parser.add_argument("--format", default="int4-g64")
    parser.add_argument("--container", default="packed")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    import torch

    from benchmarks.deep_models import make_deep

    with tempfile.TemporaryDirectory() as folder:
        deep = Path(folder) / args.model.name
        make_deep(args.model, deep, args.copies, args.times, torch.bfloat16)
        size = sum(path.stat().st_size for path in deep.glob("*.safetensors"))
        command = [sys.executable, "-m", "benchmarks.execute_memory", str(deep), "--child"]
        for name in ("limit_mib", "tokens", "quantizer", "format", "container"):
            command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
        # BLAS sets 32 MiB aside for every thread: of no use here, and the limit counts it.
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{args.model.name} x {args.copies} wide x {args.times} deep, {args.quantizer} to {args.format} in "
        f"{args.container}: checkpoint {size / MIB:.0f} MiB in bfloat16 ({found['units']} units, largest "
        f"{2 * found['largest'] / MIB:.1f} MiB, blocks of {found['block'] / MIB:.0f} MiB in float32)\n"
        f"limit on data {args.limit_mib} MiB ({found['before'] / MIB:.0f} at the start): the checkpoint is "
        f"{size / MIB / args.limit_mib:.2f} of it, its units in float32 "
        f"{4 * found['weights'] / MIB / args.limit_mib:.2f}\n"
        f"peak resident {found['calibrated'] / MIB:.0f} MiB while gathering moments ({found['gathered']:.0f} s, "
        f"{found['moments'] / MIB:.0f} MiB on disk), {found['written'] / MIB:.0f} MiB at the end "
        f"({found['seconds']:.0f} s, {found['bytes'] / MIB:.0f} MiB written)"
    )


if __name__ == "__main__":
    main()
