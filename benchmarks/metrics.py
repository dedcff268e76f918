"""How well every metric predicts measured KL, and what its plans cost: the numbers of docs/metrics.md.

Usage: python -m benchmarks.metrics MODEL [--metrics fisher,hessian,...] [--tokens 16384] [--test 16384] [--plans 60]
           [--calibration FILE] [--evaluation FILE] [--peers] [--seeds 1] [--keep DIR] [--out report.json]
           [--plot figure.svg]

Scores on one part of the calibration data (the bundled text, or --calibration FILE) and measures on the other part, or
on --evaluation FILE. Formats: RTN int2,3,4,5,6,8-g64. For each metric (all that can score the model): passes, seconds
and peak memory, each in a process of its own; Spearman and Pearson (of logarithms) and median predicted/measured over
random mixed plans of nearly equal bytes and over plans near the optimum at 2.5, 3 and 3.5 code bits (that of
`kl-probe`, the measured truth about single units, where it is among the metrics, else of the first one); and the
measured KL of the plan it leads to at 2.5, 3, 3.5, 4 code bits. `regret`: that KL over the KL of the plan from
`kl-probe`. --peers: the plans of AutoRound's AutoScheme and ModelOpt's auto_quantize too, from the same scoring items
(.venv-peers: `make peers`). With --seeds N all of it is done for N draws of the calibration data. --keep: every metric,
tool and measured plan is kept there, and a run that was stopped, or is asked for further metrics, goes on from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr

from benchmarks.metric_plans import (
    BUDGETS,
    FORMATS,
    RANDOM_BUDGETS,
    WIDTHS,
    Choice,
    bytes_at,
    ends_high,
    near_choice,
    optimum,
    random_choice,
)
from benchmarks.metric_report import markdown, plot
from benchmarks.metric_scores import Question, Scored, scored
from benchmarks.peer_plans import ABLE, PYTHON, TOOLS, bits_used, laid_on, run_tool
from bitwright.core.canonical import atomic_write, digest_json
from bitwright.core.inventory import Inventory
from bitwright.core.table import SensitivityTable
from bitwright.models import ModelSource, inspect, open_model
from sensitivity import calibration
from sensitivity.base import numerics
from sensitivity.catalog import METRICS
from sensitivity.data import Data
from sensitivity.doubt import predict, stability
from sensitivity.evaluate import measure
from sensitivity.pooling import samples_of
from sensitivity.response import Response
from sensitivity.runner import Runner, load_runner
from solvers import solve

TRUTH = "kl-probe"
#: Plans measured between two states that are kept.
AT_ONCE = 12
Kl = dict[str, float]


def uniform_kl(bits: float, kl: Kl) -> float:
    """KL of uniform plans, interpolated in log KL between whole widths."""
    return float(np.exp(np.interp(bits, WIDTHS, [np.log(kl[name]) for name in FORMATS])))


def near_plans(plans: int) -> int:
    """Plans near the optimum a budget: a third of the random ones, whose ranks are what a goal is set for."""
    return max(2, plans // 3)


def choices_to_measure(tables: dict[str, SensitivityTable], plans: int, seed: int) -> dict[str, Choice]:
    anchor = TRUTH if TRUTH in tables else next(iter(tables))
    first = tables[anchor]
    cost, rng = first.cost_bytes(), np.random.default_rng(seed)
    choices: dict[str, Choice] = {name: np.full(len(cost), j) for j, name in enumerate(FORMATS)}
    for bits in BUDGETS:
        choices[f"ends {bits}"] = ends_high(first, bits)
        for metric, table in tables.items():
            choices[f"plan {metric} {bits}"] = optimum(table, bits)
    for bits in RANDOM_BUDGETS:
        limit, best = bytes_at(bits, first), choices[f"plan {anchor} {bits}"]
        for number in range(plans):
            choices[f"random {bits} {number}"] = random_choice(limit, cost, rng)
            near = near_choice(best, limit, cost, rng)
            if number < near_plans(plans):
                choices[f"near {bits} {number}"] = near
    return choices


def peer_choices(model: str, inventory: Inventory, data: Data, folder: Path) -> dict[str, dict[float, Choice]]:
    """tool -> budget -> its plan, of an earlier run where one was kept."""
    found = {}
    for tool in ABLE.get(inventory.task, ()):
        kept = folder / f"{TOOLS[tool]}.json"
        if not kept.exists():
            kept.write_text(json.dumps(run_tool(TOOLS[tool], model, data)))
        plans = json.loads(kept.read_text())["plans"]
        found[tool] = {bits: laid_on(inventory, plans[str(bits)]) for bits in BUDGETS}
    return found


def measured(
    choices: dict[str, Choice], source: ModelSource, inventory: Inventory, data: Data, runner: Runner, folder: Path
) -> Kl:
    """KL by name; plans that are the same are measured once, and those that an earlier run kept not again."""
    path = folder / "measured.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    keys = {name: "-".join(map(str, choice.tolist())) for name, choice in choices.items()}
    missing = [key for key in dict.fromkeys(keys.values()) if key not in known]
    for start in range(0, len(missing), AT_ONCE):
        some = missing[start : start + AT_ONCE]
        variants = {key: [FORMATS[int(j)] for j in key.split("-")] for key in some}
        found = measure(source, inventory, variants, data, runner=runner)
        known |= {key: quality.kl for key, quality in found.items()}
        with atomic_write(path) as file:
            file.write(json.dumps(known).encode())
    return {name: known[key] for name, key in keys.items()}


def own_prediction(table: SensitivityTable, choice: Choice, bits: float) -> tuple[float, float, float]:
    """(expected, low, high) KL of the metric's own plan, as a plan report gives it."""
    resampled, _ = samples_of(table)
    optimism = 1.0
    if resampled is not None:
        problem = table.problem(bytes_at(bits, table))

        def again(loss: Any) -> Choice:
            return np.asarray(solve(replace(problem, loss=loss)).choice)

        optimism = stability(table.loss, resampled, choice, again).optimism
    response = Response.from_json(table.provenance.get("response"))
    found = predict(table.loss, table.stderr, choice, response, resampled=resampled, optimism=optimism)
    return found.kl, found.low, found.high


def passes(metric: str, table: SensitivityTable) -> str:
    """What the metric needs, as its catalog entry says it, with units, formats and noise levels counted."""
    units, formats = table.loss.shape
    words = str(METRICS.get(metric).traits["passes"])
    probes = {"units x formats": units * formats, "units x levels": units * int(table.provenance["samples"])}
    for name, number in probes.items():
        words = words.replace(name, str(number))
    return words.replace("formats", str(formats))


def row(metric: str, table: SensitivityTable, choices: dict[str, Choice], kl: Kl, cost: Scored) -> dict[str, Any]:
    response = Response.from_json(table.provenance.get("response"))

    def predicted(name: str) -> float:
        return response.kl(float(table.loss[np.arange(len(choices[name])), choices[name]].sum()))

    def group(kind: str, bits: float) -> tuple[list[float], list[float]]:
        names = [name for name in choices if name.startswith(f"{kind} {bits} ")]
        return [predicted(name) for name in names], [kl[name] for name in names]

    found: dict[str, Any] = {
        "seconds": cost.seconds, "peak_mib": cost.peak_mib, "passes": passes(metric, table),
        "response": response.to_json(),
    }  # fmt: skip
    for kind in ("random", "near"):
        pairs = [group(kind, bits) for bits in RANDOM_BUDGETS]
        found[f"{kind}_spearman"] = [float(spearmanr(*pair).statistic) for pair in pairs]
        found[f"{kind}_pearson"] = [float(pearsonr(np.log(pair[0]), np.log(pair[1])).statistic) for pair in pairs]
        found[f"{kind}_pairs"] = pairs
    found["ratio"] = float(np.median(np.concatenate([np.divide(*pair) for pair in found["random_pairs"]])))
    plans = {bits: f"plan {metric} {bits}" for bits in BUDGETS}
    own = {bits: own_prediction(table, choices[name], bits) for bits, name in plans.items()}
    gains = [uniform_kl(bits, kl) / kl[name] for bits, name in plans.items()]
    found |= {
        "kl": [kl[name] for name in plans.values()],
        "own_ratio": [own[bits][0] / kl[name] for bits, name in plans.items()],
        "own_interval": [[own[bits][1] / kl[name], own[bits][2] / kl[name]] for bits, name in plans.items()],
        "bare_ratio": [
            float(table.loss[np.arange(len(choices[name])), choices[name]].sum()) / kl[name] for name in plans.values()
        ],
        "gain": float(np.exp(np.mean(np.log(gains)))),
    }
    truth = [f"plan {TRUTH} {bits}" for bits in BUDGETS]
    if all(name in kl for name in truth):
        found["regret"] = [kl[plans[bits]] / kl[name] for bits, name in zip(BUDGETS, truth, strict=True)]
    return found


def one_seed(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    source = open_model(arguments.model)
    inventory = inspect(source)
    parts = calibration.load(
        arguments.calibration, source, inventory,
        scoring_tokens=arguments.tokens, confirming_tokens=arguments.test, seed=seed,
    )  # fmt: skip
    test = parts.confirming
    if arguments.evaluation is not None:
        test = calibration.load_data(arguments.evaluation, source, inventory, tokens_wanted=arguments.test)
    question = Question(arguments.model, arguments.calibration, arguments.tokens, arguments.test, seed)
    asked = digest_json({"parts": parts.digest, "test": test.digest, "numerics": numerics(), "seed": seed})
    name = Path(arguments.model).name
    folder = arguments.keep / f"{name}-{seed}-{asked.removeprefix('sha256:')[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    peers = peer_choices(arguments.model, inventory, parts.scoring, folder) if arguments.peers else {}
    found = {metric: scored(metric, question, folder) for metric in arguments.metrics.split(",")}
    tables = {metric: one.table for metric, one in found.items() if one.table is not None}
    choices = choices_to_measure(tables, arguments.plans, seed)
    choices |= {f"plan {tool} {bits}": choice for tool, plans in peers.items() for bits, choice in plans.items()}
    kl = measured(choices, source, inventory, test, load_runner(source, inventory), folder)
    return {
        "model": name, "tokens": parts.scoring.tokens, "test": test.tokens, "seed": seed,
        "plans": arguments.plans, "near": near_plans(arguments.plans),
        "uniform": {str(bits): uniform_kl(bits, kl) for bits in BUDGETS},
        "ends_high": {str(bits): kl[f"ends {bits}"] for bits in BUDGETS},
        "metrics": {metric: row(metric, table, choices, kl, found[metric]) for metric, table in tables.items()},
        "left_out": {metric: one.why for metric, one in found.items() if one.table is None},
        "peers": {
            tool: {str(bits): [bits_used(inventory, plans[bits]), kl[f"plan {tool} {bits}"]] for bits in BUDGETS}
            for tool, plans in peers.items()
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--metrics", default=",".join(METRICS.names()))
    parser.add_argument("--calibration", default=None)
    parser.add_argument("--evaluation", default=None, help="held-out text or arrays to measure on")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--test", type=int, default=4096)
    parser.add_argument("--plans", type=int, default=60, help="random plans a budget; a third as many near the optimum")
    parser.add_argument("--peers", action="store_true", help="plans of AutoScheme and auto_quantize too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="draws of the calibration data")
    parser.add_argument("--keep", type=Path, default=None, help="folder: a run that was stopped goes on from there")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None, help="predicted against measured, SVG")
    arguments = parser.parse_args()
    if arguments.peers and not PYTHON.exists():
        parser.error("no .venv-peers: run `make peers`")
    with tempfile.TemporaryDirectory() as scratch:
        arguments.keep = arguments.keep or Path(scratch)
        reports = [one_seed(arguments, arguments.seed + number) for number in range(arguments.seeds)]
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(reports, indent=1) + "\n")
    if arguments.plot is not None:
        arguments.plot.write_text(plot(reports[0]))
    print(markdown(reports))


if __name__ == "__main__":
    main()
