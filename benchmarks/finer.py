"""Finer units and better quantizers at equal true bytes: the table of docs/benchmarks.md.

Usage: python -m benchmarks.finer MODEL --calibration FILE --test FILE [--cases rtn,rtn/row,gptq/row,...] [--cache DIR]

A case is QUANTIZER[/GRANULARITY][+free]: its own table of `fisher` losses (of the quantizer's own errors), its own plan
by `auto`, its own measured KL on the test text. Budgets are the true bytes of `--bits` code bits of round to nearest by
tensor, groups of 64, interpolated between whole widths: the same bytes for every case, all metadata counted. `plan:rtn`
as a prefix measures the quantizer on the plan of that case instead. With `--cache` tables are kept between runs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.inventory import Inventory
from bitwright.core.table import SensitivityTable, load_table
from bitwright.models import ModelSource, inspect, open_model
from bitwright.settings import Settings
from sensitivity import calibration as calibrations
from sensitivity.data import Calibration
from sensitivity.evaluate import measure
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from solvers import solve
from worker.steps.context import Context
from worker.steps.quantizing import Maker, make_quantizer

WIDTHS = (2, 3, 4, 5, 6, 8)
FORMATS = tuple(f"int{width}-g64" for width in WIDTHS)
CASES = "rtn,rtn/row,rtn/row:8,clip,clip/row,gptq,plan:rtn@gptq,plan:rtn/row@gptq,gptq/row,gptq/row:8"


class Bench:
    """A model, its calibration, and the tables and quantizers made so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.cache: Path = args.cache
        self.samples, self.ties = args.samples, tuple(args.ties.split(",")) if args.ties else ()
        self.source: ModelSource = open_model(args.model)
        self.inventory: Inventory = inspect(self.source)
        self.calibration: Calibration = calibrations.load(
            Path(args.calibration), self.source, self.inventory, scoring_tokens=args.tokens, confirming_tokens=256
        )
        self.test = calibrations.load_data(Path(args.test), self.source, self.inventory, tokens_wanted=args.test_tokens)
        self.context = Context(Settings(state_dir=args.cache / "state"))

    def maker(self, quantizer: str) -> Maker:
        return make_quantizer(quantizer, self.source, self.inventory, self.calibration, self.context)

    def table(self, case: str) -> SensitivityTable:
        quantizer, _, granularity = case.partition("/")
        path = self.cache / f"{case.replace('/', '-').replace(':', '')}.npz"
        if not path.is_file():
            began = time.perf_counter()
            made = score(
                self.source, self.inventory, FORMATS, calibration=self.calibration, quantizer=self.maker(quantizer),
                samples=self.samples, granularity=granularity or "tensor",
            )  # fmt: skip
            made.save(path)
            print(f"scored {case} in {time.perf_counter() - began:.0f} s", flush=True)
        return load_table(path)

    def plan(self, case: str, limit: int) -> dict[str, Any]:
        """Formats by unit, bytes and predicted loss of a case within `limit` bytes. `+tied`: with the given ties."""
        name, _, tied = case.partition("+")
        table = self.table(name)
        problem = table.problem(limit, tie_kinds=self.ties if tied else ())
        solution = solve(problem, "auto").require()
        return {
            "formats": table.unit_formats(solution.choice),
            "bytes": int(problem.resource("bytes").total(solution.choice)),
            "predicted": solution.loss,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--bits", default="2.5,3,3.5")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--test-tokens", type=int, default=8192)
    parser.add_argument("--ties", default="", help="tie kinds of cases that end in +tied")
    parser.add_argument("--cache", type=Path, required=True)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    totals = bench.table("rtn").cost_bytes().sum(axis=0)
    runner, found = load_runner(bench.source, bench.inventory), []
    for bits in map(float, args.bits.split(",")):
        limit = int(np.interp(bits, WIDTHS, totals))
        base: float | None = None
        for case in args.cases.split(","):
            planned, _, quantizer = case.removeprefix("plan:").partition("@")
            plan = bench.plan(planned, limit)
            maker = bench.maker(quantizer or planned.partition("+")[0].partition("/")[0])
            kl = measure(
                bench.source, bench.inventory, {"plan": plan["formats"]}, bench.test, quantizer=maker, runner=runner
            )["plan"].kl
            base = kl if base is None else base
            row = {"bits": bits, "case": case, "kl": kl, "ratio": kl / base, "share": plan["bytes"] / limit,
                   "predicted": plan["predicted"] / kl}  # fmt: skip
            found.append(row)
            print(f"{bits:4} {case:22} KL {kl:.5f}  ratio {kl / base:.3f}  bytes {row['share']:.5f}"
                  f"  predicted/measured {row['predicted']:.2f}", flush=True)  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
