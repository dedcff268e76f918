"""Plans with pair terms against additive ones at very few bits, chosen by measuring: the numbers of docs/metrics.md.

Usage: python -m benchmarks.joint MODEL [--tokens 16384] [--probe 1024] [--test 16384] [--seed 0]
           [--menu symmetric] [--budgets 2.0625,2.1,...] [--calibration FILE --evaluation FILE]

Two menus: asymmetric RTN (int2,3,4,5-g64) and, as a harsh one, symmetric RTN (int2,3,4,5-sym-g64), whose 2-bit errors
are several times larger. For each budget in code bits: the additive `fisher` plan, the plan of the solver `pairs` with
terms from probe sketches on --probe tokens, KL of both on other calibration tokens (which decides), and on --evaluation
(test.txt).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from bitwright.core.problem import Pairs
from bitwright.models import inspect, open_model
from quantizers.rtn import QUANTIZER
from sensitivity import calibration
from sensitivity.base import silent
from sensitivity.evaluate import measure
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from sensitivity.sketches import pair_terms, sketch
from solvers import solve

WIDTHS = (2, 3, 4, 5)
BUDGETS = (2.0625, 2.1, 2.125, 2.15, 2.2, 2.25, 2.3, 2.5)
MENUS = {"asymmetric": "int{}-g64", "symmetric": "int{}-sym-g64"}
TEXT = Path("tests/models/text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--probe", type=int, default=1024)
    parser.add_argument("--test", type=int, default=16_384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--menu", choices=sorted(MENUS), default=None)
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="code bits, separated by commas")
    parser.add_argument("--calibration", default=str(TEXT / "valid.txt"))
    parser.add_argument("--evaluation", default=str(TEXT / "test.txt"))
    arguments = parser.parse_args()
    source = open_model(arguments.model)
    inventory = inspect(source)
    runner = load_runner(source, inventory)
    parts = calibration.load(
        arguments.calibration, source, inventory, scoring_tokens=arguments.tokens,
        confirming_tokens=arguments.tokens, seed=arguments.seed,
    )  # fmt: skip
    test = calibration.load_data(arguments.evaluation, source, inventory, tokens_wanted=arguments.test)
    few = parts.scoring.take(np.arange(max(1, round(arguments.probe * parts.scoring.items / parts.scoring.tokens))))
    for menu in [arguments.menu] if arguments.menu else MENUS:
        formats = tuple(MENUS[menu].format(width) for width in WIDTHS)
        table = score(source, inventory, formats, calibration=parts, seed=arguments.seed)
        cells = [(unit, column) for unit in range(len(inventory.units)) for column in range(3)]
        found = sketch(
            source, inventory, QUANTIZER, formats, cells, few, seed=arguments.seed, progress=silent, runner=runner
        )  # fmt: skip
        terms = Pairs(*pair_terms(cells, found.products()))
        sizes = table.cost_bytes().sum(axis=0)
        print(f"\n### {Path(arguments.model).name}, {menu}, seed {arguments.seed}\n")
        print("| code bits | additive | with pair terms | chosen | chosen / additive | predicted additive / joint |")
        print("|---|---|---|---|---|---|")
        ratios = []
        for bits in map(float, arguments.budgets.split(",")):
            problem = table.problem(int(np.interp(bits, WIDTHS, sizes)))
            paired = replace(problem, pairs=terms)
            plans = {
                "additive": np.asarray(solve(problem).choice),
                "joint": np.asarray(solve(paired, "pairs", time_limit=10).choice),
            }
            variants = {name: [formats[j] for j in choice] for name, choice in plans.items()}
            aside = {n: q.kl for n, q in measure(source, inventory, variants, parts, runner=runner).items()}
            kl = {n: q.kl for n, q in measure(source, inventory, variants, test, runner=runner).items()}
            chosen = "joint" if aside["joint"] < aside["additive"] else "additive"
            ratios.append(kl[chosen] / kl["additive"])
            rows = np.arange(problem.n)
            own = float(table.loss[rows, plans["joint"]].sum())
            change = 100 * (kl["joint"] / kl["additive"] - 1)
            print(
                f"| {bits} | {kl['additive']:.5f} | {kl['joint']:.5f} ({change:+.1f} %) "
                f"| {chosen} | {ratios[-1]:.3f} | {own:.5f} / {own + terms.total(plans['joint']):.5f} |",
                flush=True,
            )
        print(f"\nworst {max(ratios):.3f}, geometric mean {np.exp(np.mean(np.log(ratios))):.3f}", flush=True)


if __name__ == "__main__":
    main()
