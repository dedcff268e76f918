"""Solver benchmarks: every peer on the same instances, one process a peer, CPU seconds and gaps in one table.

    python -m benchmarks.solvers ladder --families hetero,layers --sizes 224,2000 --formats 4,8 --seeds 3
    python -m benchmarks.solvers stream --sizes 1e7 --formats 4,8          against one streaming read of the table
    python -m benchmarks.solvers limits --sizes 2000,45000                 two binding limits
    python -m benchmarks.solvers ladder ... --json out.jsonl --plot out.png

CPU seconds, not wall seconds: a shared machine stretches the latter at will. gap = (loss - LP bound) / loss with the
bound of `hull`. Imports and a small warm-up run are not counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.certificate import total_loss, verify
from bitwright.core.problem import IntArray, Problem
from solvers import native, solve
from tests.solvers.instances import FAMILIES, instance
from tests.solvers.test_several_limits import both_bind

Peer = Callable[[Problem, float], tuple[IntArray | None, str]]


def ours(name: str) -> Peer:
    """A solver of the catalog; `milp` is HiGHS with scaled losses and all gaps at zero."""

    def run(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
        solution = solve(problem, name, time_limit=limit)
        return solution.choice, solution.certificate.status

    return run


def scipy_raw(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """HiGHS through scipy with the losses as they come and its default tolerances."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    n, k = problem.loss.shape
    one = csr_array((np.ones(n * k), (np.repeat(np.arange(n), k), np.arange(n * k))))
    cost = problem.resources[0].costs().astype(np.float64).reshape(1, -1)
    rows = [LinearConstraint(one, 1, 1), LinearConstraint(cost, -np.inf, float(problem.limits[0].value))]
    options = {"time_limit": limit}
    done = milp(
        problem.loss.ravel(), constraints=rows, integrality=np.ones(n * k), bounds=Bounds(0, 1), options=options
    )
    choice = None if done.x is None else done.x.reshape(n, k).argmax(axis=1)
    return choice, "optimal" if done.status == 0 else "bounded"


def pulp_binaries(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """ModelOpt's way: PuLP binaries, Python sums, CBC with its defaults, unscaled losses."""
    import pulp

    n, k = problem.loss.shape
    cost, model = problem.resources[0].costs(), pulp.LpProblem("plan", pulp.LpMinimize)
    cells = [[pulp.LpVariable(f"x{i}_{j}", cat="Binary") for j in range(k)] for i in range(n)]
    model += pulp.lpSum(float(problem.loss[i, j]) * cells[i][j] for i in range(n) for j in range(k))
    model += pulp.lpSum(int(cost[i, j]) * cells[i][j] for i in range(n) for j in range(k)) <= int(
        problem.limits[0].value
    )
    for row in cells:
        model += pulp.lpSum(row) == 1
    status = model.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=limit, threads=1))
    choice = np.array([int(np.argmax([cell.value() or 0 for cell in row])) for row in cells])
    return choice, "optimal" if status == 1 else "bounded"


def dictionary(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """AutoRound's way: a dictionary cost -> (loss, path), pruned to the Pareto front after every unit."""
    cost, bound = problem.resources[0].costs(), int(problem.limits[0].value)
    rest = np.append(np.cumsum(cost.min(axis=1)[::-1])[::-1][1:], 0)
    front: list[tuple[int, float, Any]] = [(0, 0.0, None)]
    end = time.process_time() + limit
    for i in range(problem.n):
        table: dict[int, tuple[float, Any]] = {}
        for spent, loss, path in front:
            for j in range(problem.k):
                c, v = spent + int(cost[i, j]), loss + float(problem.loss[i, j])
                if c + int(rest[i]) <= bound and (c not in table or v < table[c][0]):
                    table[c] = (v, (j, path))
        front, least = [], np.inf
        for c in sorted(table):
            if table[c][0] < least:
                least = table[c][0]
                front.append((c, *table[c]))
        if time.process_time() > end:
            return None, f"stopped at unit {i} with {len(front)} states"
    path, choice = front[-1][2], []
    while path is not None:
        choice.append(path[0])
        path = path[1]
    return np.array(choice[::-1]), "optimal"


def bisection(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """llama.cpp's way: forty bisections on the multiplier, then one greedy fill."""
    cost, bound, rows = problem.resources[0].costs(), problem.limits[0].value, np.arange(problem.n)
    low, high = 0.0, 1e-3 * float(problem.loss.sum()) / float(cost.sum())
    while int(cost[rows, (problem.loss + high * cost).argmin(axis=1)].sum()) > bound:
        high *= 4
    for _ in range(40):
        middle = (low + high) / 2
        fits = int(cost[rows, (problem.loss + middle * cost).argmin(axis=1)].sum()) <= bound
        low, high = (low, middle) if fits else (middle, high)
    choice = (problem.loss + high * cost).argmin(axis=1)
    room = int(bound - cost[rows, choice].sum())
    extra = cost - cost[rows, choice][:, None]
    gain = np.where(extra > 0, (problem.loss[rows, choice][:, None] - problem.loss) / np.maximum(extra, 1), 0.0)
    best = gain.argmax(axis=1)
    for i in np.argsort(-gain[rows, best], kind="stable"):
        if 0 < extra[i, best[i]] <= room and gain[i, best[i]] > 0:
            choice[i] = best[i]
            room -= int(extra[i, best[i]])
    return choice, "bounded"


PEERS: dict[str, tuple[Peer, str]] = {
    "hull": (ours("hull"), "numpy"),
    "highs-scaled": (ours("milp"), "highspy"),
    "greedy": (ours("greedy"), "numpy"),
    "bisection": (bisection, "numpy"),
    "dictionary": (dictionary, "numpy"),
    "scipy-raw": (scipy_raw, "scipy"),
    "pulp-cbc": (pulp_binaries, "pulp"),
}


def one_peer(name: str, cases: list[list[Any]], limit: float) -> None:
    """Child process: print one JSON line a case."""
    run = PEERS[name][0]
    run(instance("layers", 16, 4, 0), 5.0)
    for family, n, k, seed in cases:
        problem = instance(family, n, k, seed)
        begin = time.process_time()
        choice, status = run(problem, limit)
        seconds = time.process_time() - begin
        loss = None if choice is None or not len(choice) else total_loss(problem, choice)
        row = {"peer": name, "family": family, "n": n, "k": k, "seed": seed}
        print(json.dumps({**row, "seconds": seconds, "status": status, "loss": loss}), flush=True)
        if seconds > limit * 0.9 and n >= 2000:  # larger ones would only run out of time as well
            return


def ladder(options: argparse.Namespace) -> list[dict[str, Any]]:
    families, sizes = options.families.split(","), [int(float(n)) for n in options.sizes.split(",")]
    cases = [
        (f, n, k, s) for n in sizes for f in families for k in _ints(options.formats) for s in range(options.seeds)
    ]
    rows: list[dict[str, Any]] = []
    for name in options.peers.split(","):
        if importlib.util.find_spec(PEERS[name][1]) is None:
            print(f"{name}: {PEERS[name][1]} is not installed", file=sys.stderr)
            continue
        command = [sys.executable, "-m", "benchmarks.solvers", "child", name, json.dumps(cases), str(options.limit)]
        done = subprocess.run(command, capture_output=True, text=True)
        rows += [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    for family, n, k, seed in cases:
        problem = instance(family, n, k, seed)
        solution = solve(problem, "hull")
        assert verify(problem, solution.choice, solution.certificate).ok
        for row in rows:
            if (row["family"], row["n"], row["k"], row["seed"]) == (family, n, k, seed) and row["loss"] is not None:
                row["gap"] = (row["loss"] - float(solution.certificate.lower_bound or 0)) / row["loss"]
                row["above_best"] = row["loss"] / float(solution.loss or 1) - 1
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    """Median and worst over seeds, as Markdown."""
    print(
        "| family | n | k | peer | CPU s median / max | above hull max | says optimal |\n|---|---|---|---|---|---|---|"
    )
    for family, n, k, peer in dict.fromkeys((r["family"], r["n"], r["k"], r["peer"]) for r in rows):
        mine = [r for r in rows if (r["family"], r["n"], r["k"], r["peer"]) == (family, n, k, peer)]
        seconds, above = [r["seconds"] for r in mine], [r["above_best"] for r in mine if "above_best" in r]
        worst = f"{max(above):.1e}" if above else "no answer"
        proved = f"{sum(r['status'] == 'optimal' for r in mine)}/{len(mine)}"
        print(f"| {family} | {n} | {k} | {peer} | {np.median(seconds):.4f} / {max(seconds):.4f} | {worst} | {proved} |")


def stream(options: argparse.Namespace) -> None:
    """The compiled solver against one streaming read of the same table, in this process."""
    print("| n | k | sizes | read s | solve s | solve / read | passes | listed | gap / bound |\n|" + "---|" * 9)
    for n in (int(float(n)) for n in options.sizes.split(",")):
        for k in _ints(options.formats):
            for family in ("groups", "hetero"):
                problem = instance(family, n, k, 0, dtype=np.float32)
                resource, bound = problem.resources[0], int(problem.limits[0].value)
                reads, solves = [], []
                for _ in range(4):
                    begin = time.process_time()
                    native.read_seconds(problem.loss)
                    middle = time.process_time()
                    answer = native.solve_table(problem.loss, bound, size=resource.size, rate=resource.rate)
                    reads.append(middle - begin)
                    solves.append(time.process_time() - middle)
                ratio, gap = min(solves) / min(reads), answer.gap / answer.bound
                times = f"{min(reads):.4f} | {min(solves):.4f} | {ratio:.1f}"
                print(f"| {n} | {k} | {family} | {times} | {answer.passes} | {answer.listed} | {gap:.1e} |", flush=True)


def limits(options: argparse.Namespace) -> None:
    """Two limits that both bind: gap, passes and CPU seconds of `vector`."""
    print("| family | n | k | seed | CPU s | passes | gap |\n|" + "---|" * 7)
    for n in (int(float(n)) for n in options.sizes.split(",")):
        for family in options.families.split(","):
            for seed in range(options.seeds):
                problem = both_bind(family, n, 8, seed)
                begin = time.process_time()
                solution = solve(problem, "vector", time_limit=60)
                seconds = time.process_time() - begin
                gap = solution.certificate.relative_gap
                print(
                    f"| {family} | {n} | 8 | {seed} | {seconds:.2f} | {solution.info['passes']} | {gap:.1e} |",
                    flush=True,
                )


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """CPU time and gap against n, one line a peer (medians over families and seeds)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, key, label in zip(
        figure.subplots(1, 2), ("seconds", "above_best"), ("CPU seconds", "above hull"), strict=True
    ):
        for peer in dict.fromkeys(r["peer"] for r in rows):
            by_size: dict[int, list[float]] = {}
            for r in rows:
                if r["peer"] == peer and key in r:
                    by_size.setdefault(r["n"], []).append(max(r[key], 1e-12))
            axes.loglog(list(by_size), [float(np.median(v)) for v in by_size.values()], "o-", label=peer)
        axes.set_xlabel("units")
        axes.set_ylabel(label)
    axes.legend(frameon=False)
    figure.savefig(path)


def _ints(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["child"]:
        one_peer(arguments[1], json.loads(arguments[2]), float(arguments[3]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["ladder", "stream", "limits"])
    parser.add_argument("--families", default="layers,hetero,oddsize,experts")
    parser.add_argument("--sizes", default="224,2000")
    parser.add_argument("--formats", default="4,8")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a peer may take for one instance")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot")
    options = parser.parse_args(arguments)
    unknown = set(options.families.split(",")) - set(FAMILIES)
    if unknown:
        parser.error(f"unknown families: {', '.join(sorted(unknown))}")
    if options.what != "ladder":
        {"stream": stream, "limits": limits}[options.what](options)
        return
    rows = ladder(options)
    report(rows)
    if options.json:
        options.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main(sys.argv[1:])
