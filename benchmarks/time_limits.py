"""How closely each solver keeps the caller's clock: seconds taken over seconds given, on problems too hard for them.

python -m benchmarks.time_limits [--seconds 2] [--solvers milp,pulp]
"""

from __future__ import annotations

import argparse
import time

from bitwright.core.errors import BitwrightError
from bitwright.core.problem import Problem
from solvers import solve
from solvers.capabilities import capabilities, features
from solvers.catalog import SOLVERS
from tests.solvers.fusion_instances import fusing
from tests.solvers.instances import instance
from tests.solvers.pair_instances import interacting


def problems() -> dict[str, Problem]:
    return {
        "nearly equal slopes, 400 x 8": instance("correlated", 400, 8, 0),
        "uneven sizes, 4,500 x 4": instance("hetero", 4500, 4, 0),
        "uneven sizes, 20,000 x 8": instance("hetero", 20_000, 8, 0),
        "dense pair terms, 40 x 4": interacting(40, 4, 0),
        "fusion with memory, 16 blocks x 16": fusing(16, 16, 0, memory=0.45),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--solvers", default=",".join(SOLVERS.names()))
    args = parser.parse_args()
    print("| problem | solver | taken / given | answer |\n|---|---|---|---|")
    for words, problem in problems().items():
        for name in args.solvers.split(","):
            if capabilities(SOLVERS.get(name)).missing(features(problem)):
                continue
            begin = time.monotonic()
            try:
                certificate = solve(problem, name, time_limit=args.seconds).certificate
                answer = f"{certificate.status}, gap {certificate.relative_gap:.1e}"
            except BitwrightError as error:
                answer = type(error).__name__
            print(f"| {words} | `{name}` | {(time.monotonic() - begin) / args.seconds:.2f} | {answer} |", flush=True)


if __name__ == "__main__":
    main()
