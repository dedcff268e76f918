"""The goals of the default metric on models that nothing was tuned on: "Held-out models" in docs/metrics.md.

Usage: python -m benchmarks.held_out_table MODEL... [--seeds 3] [--tokens 16384] [--test 8192] [--plans 40] [--keep DIR]

Each MODEL is a folder that benchmarks/held_out.py made, with valid and test data beside it. Scores on valid, measures
on test; formats, budgets and plans are those of benchmarks/metrics.py. For each draw of the calibration data: KL of the
plan of `fisher` over that of `kl-probe` (every unit really quantized alone), over uniform's, over that of 'first and
last layers high', and expected over measured KL with its interval. With the first draw alone: Spearman over random
plans of equal bytes, and finer units at the same true bytes: output rows against tensors, or experts one by one against
a block's experts tied. --keep: a run that was stopped goes on from there. Pair terms: benchmarks/joint.py MODEL.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.metric_plans import BUDGETS, FORMATS, RANDOM_BUDGETS, Choice, bytes_at, optimum, random_choice
from benchmarks.metrics import TRUTH, choices_to_measure, measured, own_prediction, uniform_kl
from bitwright.core.table import SensitivityTable, load_table
from bitwright.models import inspect, open_model
from sensitivity import calibration
from sensitivity.evaluate import measure
from sensitivity.partial import Partial
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from solvers import solve
from worker.steps.partial import kept_in

DEFAULT = "fisher"
#: Test tokens that random plans are measured on: their KL differ far more than those of plans near an optimum.
RANK_TOKENS = 4096


def mean(values: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))


def numbers(values: Iterable[float], digits: int = 3) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)


class Judge:
    """A model, its texts or images, and what was kept of earlier runs."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments
        self.source = open_model(str(folder))
        self.inventory = inspect(self.source)
        suffix = ".npz" if self.inventory.task == "image-classification" else ".txt"
        self.valid, self.test = (str(folder / f"{split}{suffix}") for split in ("valid", "test"))
        self.runner = load_runner(self.source, self.inventory)
        self.truth = () if arguments.no_truth else (TRUTH,)
        self.moe = any(unit.expert is not None for unit in self.inventory.units)

    def keep(self, name: str) -> Path:
        path: Path = self.arguments.keep / self.folder.name / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def data(self, tokens: int) -> Any:
        return calibration.load_data(self.test, self.source, self.inventory, tokens_wanted=tokens)

    def table(self, metric: str, seed: int, granularity: str = "tensor") -> SensitivityTable:
        keep = self.keep(f"{granularity}-{seed}")

        def asked(partial: Partial) -> SensitivityTable:
            parts = calibration.load(
                self.valid, self.source, self.inventory, scoring_tokens=self.arguments.tokens, confirming_tokens=256,
                seed=seed,
            )  # fmt: skip
            return score(
                self.source, self.inventory, FORMATS, metric=metric, calibration=parts, seed=seed,
                granularity=granularity, partial=partial,
                options={"tokens": self.arguments.truth_tokens} if metric == TRUTH else None,
            )  # fmt: skip

        stem = f"{metric}-{self.arguments.truth_tokens}" if metric == TRUTH else metric
        path = keep / f"{stem}.npz"
        if not path.exists():
            with kept_in(keep / f"{stem}.partial") as partial:
                asked(partial).save(path)
        return load_table(path)

    def draw(self, seed: int) -> dict[str, Any]:
        """Regret, gains and predictions of one draw of the calibration data."""
        tables = {metric: self.table(metric, seed) for metric in (DEFAULT, *self.truth)}
        choices = choices_to_measure(tables, 0, seed)
        kl = measured(
            choices, self.source, self.inventory, self.data(self.arguments.test), self.runner, self.keep("kl")
        )
        own = {bits: kl[f"plan {DEFAULT} {bits}"] for bits in BUDGETS}
        said = {bits: own_prediction(tables[DEFAULT], choices[f"plan {DEFAULT} {bits}"], bits) for bits in BUDGETS}
        return {
            "regret": [own[bits] / kl[f"plan {truth} {bits}"] for truth in self.truth for bits in BUDGETS],
            "uniform": [own[bits] / uniform_kl(bits, kl) for bits in BUDGETS],
            "ends": [own[bits] / kl[f"ends {bits}"] for bits in BUDGETS],
            "expected": [said[bits][0] / own[bits] for bits in BUDGETS],
            "inside": [said[bits][1] <= own[bits] <= said[bits][2] for bits in BUDGETS],
            "kl": list(own.values()),
        }

    def ranks(self) -> list[float]:
        """Spearman of predicted against measured KL over random plans of nearly equal bytes, a budget each."""
        table, rng = self.table(DEFAULT, 0), np.random.default_rng(0)
        cost, rows = table.cost_bytes(), np.arange(len(self.inventory.units))
        drawn: dict[str, Choice] = {
            f"{bits} {number}": random_choice(bytes_at(bits, table), cost, rng)
            for bits in RANDOM_BUDGETS for number in range(self.arguments.plans)
        }  # fmt: skip
        kl = measured(drawn, self.source, self.inventory, self.data(RANK_TOKENS), self.runner, self.keep("random"))
        return [
            float(spearmanr(*zip(*(
                (float(table.loss[rows, choice].sum()), kl[name])
                for name, choice in drawn.items() if name.startswith(f"{bits} ")
            ), strict=True)).statistic)
            for bits in RANDOM_BUDGETS
        ]  # fmt: skip

    def finer(self) -> list[float]:
        """KL of finer units over coarser ones at the same true bytes, at 2.5, 3 and 3.5 code bits."""
        table = self.table(DEFAULT, 0)
        rows = None if self.moe else self.table(DEFAULT, 0, "row")
        variants: dict[str, list[str]] = {}
        for bits in RANDOM_BUDGETS:
            limit = bytes_at(bits, table)
            coarse = self.tied(table, limit) if rows is None else optimum(table, bits)
            fine = table if rows is None else rows
            variants[f"coarse {bits}"] = table.unit_formats(coarse)
            variants[f"fine {bits}"] = fine.unit_formats(solve(fine.problem(limit)).choice)
        found = measure(self.source, self.inventory, variants, self.data(self.arguments.test), runner=self.runner)
        return [found[f"fine {bits}"].kl / found[f"coarse {bits}"].kl for bits in RANDOM_BUDGETS]

    @staticmethod
    def tied(table: SensitivityTable, limit: int) -> Choice:
        return np.asarray(solve(table.problem(limit, tie_kinds=("experts",))).choice)


def report(judge: Judge) -> list[str]:
    draws = [judge.draw(seed) for seed in range(judge.arguments.seeds)]

    def every(key: str) -> list[float]:
        return [value for draw in draws for value in draw[key]]

    units = "free experts / tied" if judge.moe else "rows / tensors"
    ranks, finer = judge.ranks(), judge.finer()
    return [
        f"### {judge.folder.name}: {len(judge.inventory.units)} units, {judge.inventory.weights:,} weights",
        *(f"regret a draw {numbers(mean(d['regret']) for d in draws)}; all **{mean(every('regret')):.3f}**"
          for _ in judge.truth),
        *(f"  draw {n}: regret {numbers(d['regret'])}, expected / measured {numbers(d['expected'], 2)}, "
          f"KL {numbers(d['kl'], 5)}" for n, d in enumerate(draws)),
        f"expected / measured {min(every('expected')):.2f} .. {max(every('expected')):.2f}, "
        f"{sum(every('inside'))} of {len(every('inside'))} inside their interval",
        f"over uniform {mean(every('uniform')):.3f}, over first and last high {mean(every('ends')):.3f}",
        f"Spearman {numbers(ranks)} ({judge.arguments.plans} plans)",
        f"{units} {numbers(finer)}; **{mean(finer):.3f}**",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16_384, help="scoring tokens (images: items)")
    parser.add_argument("--test", type=int, default=8192)
    parser.add_argument("--plans", type=int, default=40, help="random plans a budget")
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--truth-tokens", type=int, default=2048, help="tokens that kl-probe measures each unit on")
    parser.add_argument("--no-truth", action="store_true", help="without kl-probe, most of the time: no regret")
    parser.add_argument("--only", choices=("draws", "ranks", "finer"), default=None, help="one part, as JSON")
    parser.add_argument("--seed", type=int, default=0, help="with --only draws: the draw")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        arguments.keep = arguments.keep or Path(temporary)
        for folder in arguments.models:
            judge = Judge(folder, arguments)
            parts = {"draws": lambda j=judge: j.draw(arguments.seed), "ranks": judge.ranks, "finer": judge.finer}
            print(json.dumps(parts[arguments.only]()) if arguments.only else "\n".join(report(judge)), flush=True)


if __name__ == "__main__":
    main()
