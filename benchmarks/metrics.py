"""How well every metric predicts measured KL, and what its plans cost: the numbers of docs/metrics.md.

Usage: python -m benchmarks.metrics MODEL [--metrics fisher,hessian,...] [--tokens 4096] [--test 4096] [--plans 20]

Scores on one part of the calibration data (the bundled text, or --calibration FILE), measures on the other. Formats:
RTN int2,3,4,5,6,8-g64. For each metric: seconds, Spearman and median predicted/measured over random mixed plans of
nearly equal bytes at 2.5, 3 and 3.5 code bits, and the measured KL of the plan it leads to at 2.5, 3, 3.5, 4 code bits.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bitwright.core.inventory import Inventory
from bitwright.core.table import SensitivityTable
from bitwright.models import inspect, open_model
from sensitivity import calibration
from sensitivity.catalog import METRICS
from sensitivity.evaluate import measure
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from solvers import solve

WIDTHS = (2, 3, 4, 5, 6, 8)
FORMATS = tuple(f"int{width}-g64" for width in WIDTHS)
BUDGETS = (2.5, 3.0, 3.5, 4.0)
RANDOM_BUDGETS = (2.5, 3.0, 3.5)
Choice = NDArray[np.int64]


def bytes_at(bits: float, table: SensitivityTable) -> int:
    """Bytes of the uniform plan of that width, interpolated between whole widths."""
    totals = table.cost_bytes().sum(axis=0)
    return int(np.interp(bits, WIDTHS, totals))


def random_choice(limit: int, cost: NDArray[np.int64], rng: np.random.Generator) -> Choice:
    """A random mixed plan within 1 % of the bytes: random widths, then single random steps towards the limit."""
    choice = rng.integers(0, cost.shape[1], len(cost))
    rows = np.arange(len(cost))
    for _ in range(100_000):
        total = int(cost[rows, choice].sum())
        if 0.99 * limit <= total <= limit:
            break
        unit = rng.integers(len(cost))
        step = -1 if total > limit else 1
        choice[unit] = min(max(choice[unit] + step, 0), cost.shape[1] - 1)
    return choice


def uniform_kl(bits: float, kl: dict[str, float]) -> float:
    """KL of uniform plans, interpolated in log KL between whole widths."""
    return float(np.exp(np.interp(bits, WIDTHS, [np.log(kl[name]) for name in FORMATS])))


def measured(
    choices: dict[str, Choice], source: object, inventory: Inventory, data: object, runner: object
) -> dict[str, float]:
    variants = {name: [FORMATS[j] for j in choice] for name, choice in choices.items()}
    found = measure(source, inventory, variants, data, runner=runner)  # type: ignore[arg-type]
    return {name: quality.kl for name, quality in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--metrics", default=",".join(METRICS.names()))
    parser.add_argument("--calibration", default=None)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--test", type=int, default=4096)
    parser.add_argument("--plans", type=int, default=20, help="random plans a budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    source = open_model(arguments.model)
    inventory = inspect(source)
    parts = calibration.load(
        arguments.calibration, source, inventory,
        scoring_tokens=arguments.tokens, confirming_tokens=arguments.test, seed=arguments.seed,
    )  # fmt: skip
    tables: dict[str, SensitivityTable] = {}
    seconds: dict[str, float] = {}
    for metric in arguments.metrics.split(","):
        start = time.process_time()
        tables[metric] = score(source, inventory, FORMATS, metric=metric, calibration=parts, seed=arguments.seed)
        seconds[metric] = time.process_time() - start
    first = next(iter(tables.values()))
    cost, rng = first.cost_bytes(), np.random.default_rng(arguments.seed)
    choices: dict[str, Choice] = {name: np.full(len(cost), j) for j, name in enumerate(FORMATS)}
    for bits in RANDOM_BUDGETS:
        for number in range(arguments.plans):
            choices[f"random {bits} {number}"] = random_choice(bytes_at(bits, first), cost, rng)
    for metric, table in tables.items():
        for bits in BUDGETS:
            choices[f"plan {metric} {bits}"] = np.asarray(solve(table.problem(bytes_at(bits, table))).choice)
    kl = measured(choices, source, inventory, parts.confirming, load_runner(source, inventory))
    report = {
        "model": Path(arguments.model).name, "tokens": parts.scoring.tokens, "test": parts.confirming.tokens,
        "plans": arguments.plans, "uniform": {str(bits): uniform_kl(bits, kl) for bits in BUDGETS},
        "metrics": {name: row(name, table, choices, kl, seconds[name]) for name, table in tables.items()},
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip
    text = json.dumps(report, indent=1)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    print(markdown(report))


def row(
    metric: str, table: SensitivityTable, choices: dict[str, Choice], kl: dict[str, float], seconds: float
) -> dict[str, object]:
    def predicted(name: str) -> float:
        return float(table.loss[np.arange(len(choices[name])), choices[name]].sum())

    rho, ratios = [], []
    for bits in RANDOM_BUDGETS:
        names = [name for name in choices if name.startswith(f"random {bits} ")]
        rho.append(float(spearmanr([predicted(n) for n in names], [kl[n] for n in names]).statistic))
        ratios += [predicted(n) / kl[n] for n in names]
    plans = [f"plan {metric} {bits}" for bits in BUDGETS]
    gains = [uniform_kl(bits, kl) / kl[name] for bits, name in zip(BUDGETS, plans, strict=True)]
    return {
        "spearman": rho, "ratio": float(np.median(ratios)), "kl": [kl[name] for name in plans],
        "own_ratio": [predicted(name) / kl[name] for name in plans],
        "gain": float(np.exp(np.mean(np.log(gains)))), "seconds": seconds,
    }  # fmt: skip


HEADER = (
    "metric", "Spearman 2.5 / 3 / 3.5", "predicted / measured", "KL 2.5", "KL 3", "KL 3.5", "KL 4", "gain over uniform",
    "own plan, predicted / measured", "CPU s",
)  # fmt: skip


def markdown(report: dict[str, Any]) -> str:
    """The report as a table for docs/metrics.md."""
    title = f"{report['model']}: scored on {report['tokens']}, measured on {report['test']}"
    rows = [HEADER, ("---",) * len(HEADER)]
    rows.append(("*uniform*", "", "", *(f"{v:.5f}" for v in report["uniform"].values()), "1.00", "", ""))
    for name, r in report["metrics"].items():
        nats = name.startswith(("fisher", "kl"))
        own = " / ".join(f"{v:.2f}" for v in r["own_ratio"]) if nats else "-"
        rho = " / ".join(f"{v:.2f}" for v in r["spearman"])
        kl = [f"{v:.5f}" for v in r["kl"]]
        rows.append(
            (name, rho, f"{r['ratio']:.2f}" if nats else "-", *kl, f"{r['gain']:.2f}", own, f"{r['seconds']:.0f}")
        )
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([f"### {title}, {report['plans']} random plans a budget", "", *lines])


if __name__ == "__main__":
    main()
