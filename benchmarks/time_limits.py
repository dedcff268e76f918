"""How closely each solver keeps the caller's clock: seconds taken over seconds given, on problems too hard for them.

python -m benchmarks.time_limits [--seconds 2] [--solvers milp,pulp] [--runs 3] [--busy 4]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from bitwright.core.errors import BitwrightError
from bitwright.core.problem import AT_LEAST, Limit, Problem, Resource, Rule
from solvers import AUTO, solve
from solvers.capabilities import capabilities, features
from solvers.catalog import SOLVERS
from tests.solvers.fusion_instances import fusing
from tests.solvers.instances import instance
from tests.solvers.pair_instances import interacting


def several(n: int, k: int, rules: int = 0) -> Problem:
    """Bits and milliseconds, and rules that overlap: at least some of half or fewer of the units in one format."""
    one, rng = instance("hetero", n, k, 0), np.random.default_rng([n, k, rules])
    cost = 7 * np.sort(rng.integers(1, 10_000, (n, k)), axis=1)
    given = []
    for r in range(rules):
        units = np.sort(rng.choice(n, max(2, n // (rules + 1)), replace=False))
        given.append(Rule(units, np.array([r % k]), AT_LEAST, 1 + len(units) // (2 * k)))
    limit = Limit("ms", int(0.8 * cost.mean(axis=1).sum()))
    return Problem(one.loss, (*one.resources, Resource("ms", cost)), (*one.limits, limit), rules=tuple(given))


def problems() -> dict[str, Problem]:
    return {
        "nearly equal slopes, 400 x 8": instance("correlated", 400, 8, 0),
        "uneven sizes, 4,500 x 4": instance("hetero", 4500, 4, 0),
        "uneven sizes, 20,000 x 8": instance("hetero", 20_000, 8, 0),
        "heavy tails, 200,000 x 8": instance("tails", 200_000, 8, 0),
        "two limits, 2,000 x 6": several(2000, 6),
        "two limits, 60,000 x 4": several(60_000, 4),
        "two limits, 200,000 x 4": several(200_000, 4),
        "30 rules, 2,000 x 6": several(2000, 6, 30),
        "4 rules, 200,000 x 4": several(200_000, 4, 4),
        "dense pair terms, 40 x 4": interacting(40, 4, 0),
        "dense pair terms, 224 x 4": interacting(224, 4, 0),
        "a tenth of pair terms, 400 x 8": interacting(400, 8, 0, share=0.1),
        "fusion with memory, 16 blocks x 16": fusing(16, 16, 0, memory=0.45),
    }


@contextmanager
def beside(count: int) -> Iterator[None]:
    """So many processes that want the processor all the time."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def timed(problem: Problem, name: str, seconds: float) -> tuple[float, str]:
    """(seconds taken over seconds given, the answer in words)."""
    begin = time.monotonic()
    try:
        certificate = solve(problem, name, time_limit=seconds).certificate
        answer = f"{certificate.status}, gap {certificate.relative_gap:.1e}"
    except BitwrightError as error:
        answer = type(error).__name__
    return (time.monotonic() - begin) / seconds, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--solvers", default=",".join([*SOLVERS.names(), AUTO]))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--busy", type=int, default=0, help="busy processes beside it")
    args = parser.parse_args()
    print("| problem | solver | taken / given | answer |\n|---|---|---|---|")
    with beside(args.busy):
        for words, problem in problems().items():
            for name in args.solvers.split(","):
                if name != AUTO and capabilities(SOLVERS.get(name)).missing(features(problem)):
                    continue
                runs = [timed(problem, name, args.seconds) for _ in range(args.runs)]
                taken = " ".join(f"{ratio:.2f}" for ratio, _ in runs)
                print(f"| {words} | `{name}` | {taken} | {max(runs)[1]} |", flush=True)


if __name__ == "__main__":
    main()
