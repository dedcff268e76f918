"""A model several times larger than the memory of the process: scored, planned and measured block by block.

Usage: python -m benchmarks.streaming MODEL [--copies 8] [--times 8] [--limit-mib 900] [--tokens 256] [--dtype float32]
           [--store bfloat16] [--metric fisher] [--quantizer rtn] [--formats int2-g64,int3-g64,int4-g64] [--keep DIR]
           [--score-only] [--granularity tensor] [--option NAME=JSON ...]

Makes a wide and deep checkpoint of a trained model (benchmarks/deep_models.py) in a temporary folder (or --keep), then,
in a process whose data segment is limited by the kernel (RLIMIT_DATA) to --limit-mib: the metric's table (`fisher` with
its response), a plan of the bytes of the middle format, and its KL beside uniform, all as the library does it by itself
for models that do not fit. Prints the bytes of the checkpoint, of its largest block in float32, the limit, and the peak
resident memory (VmHWM), interpreter and torch included, against the promise 4 x largest block + activation budget +
1 GiB. So few tokens make no good plan of a large model: what is measured here is memory. --score-only: the table alone.
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
from typing import Any

MIB = 1 << 20


def child(
    model: str, metric: str, formats: tuple[str, ...], limit: int, tokens: int, options: dict[str, Any],
    measuring: bool, quantizer: str, granularity: str,
) -> None:  # fmt: skip
    """In the limited process. Prints one JSON line."""
    import numpy as np

    from bitwright.models import inspect, open_model
    from bitwright.settings import Settings
    from sensitivity import calibration
    from sensitivity.evaluate import measure
    from sensitivity.scoring import score
    from solvers import solve
    from worker.steps.context import Context
    from worker.steps.quantizing import make_quantizer

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    start_data = re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    source = open_model(model)
    inventory = inspect(source)
    parts = calibration.load(None, source, inventory, scoring_tokens=tokens, confirming_tokens=tokens)
    start = time.monotonic()
    maker = make_quantizer(quantizer, source, inventory, parts, Context(Settings(state_dir=Path(model) / "state")))
    table = score(
        source, inventory, formats, metric=metric, calibration=parts, samples=1, options=options, quantizer=maker,
        granularity=granularity,
    )  # fmt: skip
    scored = time.monotonic() - start
    found = {}
    if measuring:
        middle = (len(formats) - 1) // 2
        limit_bytes = int(table.cost_bytes()[:, middle].sum())
        choice = np.asarray(solve(table.problem(limit_bytes)).choice)
        variants = {"plan": [formats[j] for j in choice], "uniform": [formats[middle]] * len(choice)}
        variants = variants if len(formats) > 1 else {"uniform": variants["uniform"]}
        found = measure(source, inventory, variants, parts, quantizer=maker)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    blocks: dict[int | None, int] = {}
    for unit in inventory.units:
        blocks[unit.layer] = blocks.get(unit.layer, 0) + 4 * unit.elements
    answer = {
        "data": 1024 * int(start_data[1]) if start_data else 0, "peak": 1024 * int(peak[1]) if peak else 0,
        "block": max(blocks.values()), "units": len(inventory.units), "rows": len(table.loss),
        "weights": inventory.weights, "scored": scored, "measured": time.monotonic() - start - scored,
        "streamed": bool(table.provenance["parameters"].get("streamed")), "tokens": parts.scoring.tokens,
        "kl": {name: quality.kl for name, quality in found.items()},
    }  # fmt: skip
    print(json.dumps(answer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--limit-mib", type=int, default=900)
    parser.add_argument("--activation-mib", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--store", default=None, choices=("float16", "bfloat16"))
    parser.add_argument("--metric", default="fisher")
    parser.add_argument("--quantizer", default="rtn")
    parser.add_argument("--formats", default="int2-g64,int3-g64,int4-g64")
    parser.add_argument("--granularity", default="tensor", help="finer ones with --score-only")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=JSON", help="of the metric")
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--score-only", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        options = {"activation_mib": arguments.activation_mib}
        options |= {} if arguments.dtype == "float32" else {"dtype": arguments.dtype}
        options |= {name: json.loads(value) for name, _, value in (one.partition("=") for one in arguments.option)}
        formats = tuple(arguments.formats.split(","))
        limit, measuring = arguments.limit_mib * MIB, not arguments.score_only
        child(
            str(arguments.model), arguments.metric, formats, limit, arguments.tokens, options, measuring,
            arguments.quantizer, arguments.granularity,
        )  # fmt: skip
        return
    import torch

    from benchmarks.deep_models import make_deep

    with tempfile.TemporaryDirectory() as folder:
        deep = (arguments.keep or Path(folder)) / arguments.model.name
        if not deep.exists():
            store = None if arguments.store is None else getattr(torch, arguments.store)
            make_deep(arguments.model, deep, arguments.copies, arguments.times, store)
        size = sum(path.stat().st_size for path in deep.glob("*.safetensors"))
        command = [sys.executable, "-m", "benchmarks.streaming", str(deep), "--child"]
        for name in ("limit_mib", "activation_mib", "tokens", "dtype", "metric", "quantizer", "formats", "granularity"):
            command += ["--" + name.replace("_", "-"), str(getattr(arguments, name))]
        command += ["--score-only"] if arguments.score_only else []
        command += [part for one in arguments.option for part in ("--option", one)]
        # BLAS sets 32 MiB aside for every thread: of no use here, and the limit counts it.
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        found = json.loads(done.stdout.splitlines()[-1])
    promise = 4 * found["block"] + arguments.activation_mib * MIB + 1024 * MIB
    limit, block = arguments.limit_mib, found["block"] / MIB
    print(
        f"{arguments.model.name} x {arguments.copies} wide x {arguments.times} deep, {arguments.metric} by "
        f"{arguments.granularity} {' '.join(arguments.option)} and "
        f"{arguments.quantizer} in {arguments.dtype}: checkpoint {size / MIB:.0f} MiB "
        f"({4 * found['weights'] / MIB:.0f} MiB in float32), "
        f"{found['units']} units, a table of {found['rows']} rows, "
        f"largest block {block:.0f} MiB in float32\n"
        f"limit on data {limit} MiB, of which interpreter and libraries take {found['data'] / MIB:.0f}: "
        f"the checkpoint is {size / MIB / limit:.1f} times larger\n"
        f"peak resident {found['peak'] / MIB:.0f} MiB; promised {promise / MIB:.0f} MiB; streamed: {found['streamed']}"
        f"\n{found['tokens']} tokens scored in {found['scored']:.0f} s, measured in {found['measured']:.0f} s: KL "
        f"{found['kl']}"
    )


if __name__ == "__main__":
    main()
