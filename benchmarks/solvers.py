"""Solver benchmarks: every peer on the same instances, one process a peer, CPU seconds and gaps in one table.

    python -m benchmarks.solvers ladder --families hetero,layers --sizes 224,2000 --formats 4,8 --seeds 3
    python -m benchmarks.solvers proved --families similar,tails --sizes 45000 --formats 4,8 --seeds 8    hull alone
    python -m benchmarks.solvers stream --sizes 1e7 --formats 4,8          against one streaming read of the table
    python -m benchmarks.solvers stream --sizes 1e7 --bits 3.5,1%,99%      the same at other budgets
    python -m benchmarks.solvers disk --sizes 2e8 --folder /var/tmp        a file that is mapped, not read
    python -m benchmarks.solvers limits --sizes 2000,45000                 two binding limits
    python -m benchmarks.solvers ladder ... --json out.jsonl --plot docs/images/solvers.svg

CPU seconds (children of a peer included), not wall seconds: a shared machine stretches the latter at will. gap =
(loss - LP bound) / loss with the bound of `hull`. Imports and WARM small warm-up runs are not counted; of what takes
less than SHORT seconds the median of some runs counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

# Run as a file, its own folder comes first and would hide the package `solvers`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import solver_scale
from benchmarks.solver_peers import PEERS
from bitwright.core.certificate import total_loss, verify, violations
from bitwright.core.errors import BitwrightError
from solvers import native, solve
from tests.solvers.instances import FAMILIES, instance
from tests.solvers.test_several_limits import both_bind

ROOT = Path(__file__).resolve().parents[1]
#: Python runs a function at its pace from the eighth call or so on.
WARM = 12
#: What takes less than so many seconds is repeated, so many times at most, and its median counts: one solve of a fifth
#: of a millisecond tells more of what else the processor did.
SHORT, REPEATS = 0.02, 9


def one_peer(name: str, cases: list[list[Any]], limit: float) -> None:
    """Child process: print one JSON line a case."""
    run = PEERS[name][0]
    for _ in range(WARM):
        run(instance("layers", 16, 4, 0), 5.0)
    for family, n, k, seed in cases:
        times: list[float] = []
        while not times or (len(times) < REPEATS and sum(times) < SHORT):
            problem = instance(family, n, k, seed)  # a new one: nothing that was found out of the last one is left
            begin = _spent()
            choice, status = run(problem, limit)
            times.append(_spent() - begin)
        seconds = float(np.median(times))
        loss = None if choice is None or not len(choice) else total_loss(problem, choice)
        if loss is not None and choice is not None and violations(problem, choice):  # some allow for a share of 1e-6
            loss, status = None, "breaks the limit"
        row = {"peer": name, "family": family, "n": n, "k": k, "seed": seed}
        print(json.dumps({**row, "seconds": seconds, "status": status, "loss": loss}), flush=True)
        if seconds > limit * 0.9 and n >= 2000:  # larger ones would only run out of time as well
            return


def _spent() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def ladder(options: argparse.Namespace) -> list[dict[str, Any]]:
    families, sizes = options.families.split(","), _sizes(options)
    cases = [
        (f, n, k, s) for n in sizes for f in families for k in _ints(options.formats) for s in range(options.seeds)
    ]
    rows: list[dict[str, Any]] = []
    for name in options.peers.split(","):
        if importlib.util.find_spec(PEERS[name][1]) is None:
            print(f"{name}: {PEERS[name][1]} is not installed", file=sys.stderr)
            continue
        command = [sys.executable, "-m", "benchmarks.solvers", "child", name, json.dumps(cases), str(options.limit)]
        with tempfile.TemporaryFile("w+") as lines:
            try:
                subprocess.run(
                    command, cwd=ROOT, stdout=lines, stderr=subprocess.DEVNULL, timeout=options.peer_limit, check=True
                )
            except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
                print(f"{name}: ended early, {type(error).__name__}", file=sys.stderr)
            lines.seek(0)
            rows += [json.loads(line) for line in lines if line.endswith("\n") and line.startswith("{")]
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
    base = {_case(r): r["seconds"] for r in rows if r["peer"] == "hull"}
    print("| family | n | k | peer | CPU s median / max | times hull | above hull max | says optimal |\n|" + "---|" * 8)
    for family, n, k, peer in dict.fromkeys((r["family"], r["n"], r["k"], r["peer"]) for r in rows):
        mine = [r for r in rows if (r["family"], r["n"], r["k"], r["peer"]) == (family, n, k, peer)]
        seconds, above = [r["seconds"] for r in mine], [r["above_best"] for r in mine if "above_best" in r]
        broken = sum(r["status"] == "breaks the limit" for r in mine)
        worst = f"{max(above):.1e}" if above else f"{broken} break the limit" if broken else "no answer"
        proved = f"{sum(r['status'] == 'optimal' for r in mine)}/{len(mine)}"
        times = np.median([r["seconds"] / max(base[_case(r)], 1e-6) for r in mine]) if base else float("nan")
        print(
            f"| {family} | {n} | {k} | {peer} | {np.median(seconds):.4f} / {max(seconds):.4f} | {times:.0f} "
            f"| {worst} | {proved} |"
        )


def _case(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["family"], row["n"], row["k"], row["seed"]


def limits(options: argparse.Namespace) -> None:
    """Two limits that both bind: gap, passes and CPU seconds of `vector`."""
    print("| family | n | k | seed | CPU s | passes | gap | status |\n|" + "---|" * 8)
    for n in (int(float(n)) for n in options.sizes.split(",")):
        for family in options.families.split(","):
            for seed in range(options.seeds):
                problem = both_bind(family, n, 8, seed)
                begin = time.process_time()
                solution = solve(problem, "vector", time_limit=60)
                seconds = time.process_time() - begin
                gap = solution.certificate.relative_gap
                print(
                    f"| {family} | {n} | 8 | {seed} | {seconds:.2f} | {solution.info['passes']} | {gap:.1e} "
                    f"| {solution.certificate.status} |",
                    flush=True,
                )


def proved(options: argparse.Namespace) -> None:
    """`hull` alone, with its Python and the independent checker: proofs, the worst gap, CPU milliseconds."""
    print("| family | n | k | proved | largest relative gap | CPU ms median / max |\n|" + "---|" * 6)
    for n, family, k in product(_sizes(options), options.families.split(","), _ints(options.formats)):
        times, gaps, optimal = [], [], 0
        for seed in range(options.seeds):
            problem = instance(family, n, k, seed)
            begin = _spent()
            solution = solve(problem, "hull", time_limit=options.limit)
            assert verify(problem, solution.choice, solution.certificate).ok
            times.append((_spent() - begin) * 1e3)
            optimal += solution.certificate.status == "optimal"
            gaps.append(0.0 if solution.certificate.status == "optimal" else solution.certificate.relative_gap or 0.0)
        print(
            f"| {family} | {n} | {k} | {optimal}/{options.seeds} | {max(gaps):.0e} "
            f"| {np.median(times):.1f} / {max(times):.1f} |",
            flush=True,
        )


def _sizes(options: argparse.Namespace) -> list[int]:
    return [int(float(n)) for n in options.sizes.split(",")]


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
    parser.add_argument("what", choices=["ladder", "proved", "stream", "disk", "limits"])
    default = "default layers,hetero,oddsize,experts; of `stream` groups,hetero"
    parser.add_argument("--families", help=f"of {', '.join(FAMILIES)}; {default}")
    parser.add_argument("--sizes", default="224,2000", help="units, such as 224,2000,1e5 (default %(default)s)")
    parser.add_argument("--formats", default="4,8", help="formats a unit, of 2 to 8, 12, 16 (default %(default)s)")
    parser.add_argument("--seeds", type=int, help="default 3; of `stream` 1")
    parser.add_argument(
        "--bits", default="3.5", help="budgets of `stream`: average bits, or `10%%` of the way from cheapest to dearest"
    )
    parser.add_argument("--repeats", type=int, default=9, help="repetitions of `stream`, the best of which counts")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a peer may take for one instance")
    parser.add_argument("--peer-limit", type=float, default=600.0, help="seconds a peer may take for all of them")
    parser.add_argument("--threads", type=int, default=1, help="threads of `stream` (its frontier takes what it likes)")
    parser.add_argument("--folder", help="where `disk` writes its file")
    parser.add_argument("--peers", default=",".join(PEERS), help="of `ladder` (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file for the figures of `ladder`, one JSON line an instance")
    parser.add_argument("--plot", help="picture for `ladder` (.svg, .png): time and gap against the number of units")
    options = parser.parse_args(arguments)
    stream = options.what == "stream"
    options.families = options.families or ("groups,hetero" if stream else "layers,hetero,oddsize,experts")
    options.seeds = options.seeds or (1 if stream else 3)
    try:
        native.required()  # figures of numpy would be taken for those of the compiled solvers
    except BitwrightError as error:
        parser.exit(2, f"{error}\n")
    for what, asked, known in (("families", options.families, FAMILIES), ("peers", options.peers, PEERS)):
        unknown = set(asked.split(",")) - set(known)
        if unknown:
            parser.error(f"unknown {what}: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if options.what != "ladder":
        sizes = _sizes(options)
        if options.what == "proved":
            proved(options)
        elif options.what == "stream":
            families = options.families.split(",")
            solver_scale.stream(
                sizes, _ints(options.formats), families, options.bits.split(","),
                seeds=options.seeds, threads=options.threads, repeats=options.repeats,
            )  # fmt: skip
        elif options.what == "disk":
            solver_scale.disk(sizes, options.folder)
        else:
            limits(options)
        return
    rows = ladder(options)
    report(rows)
    if options.json:
        options.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main(sys.argv[1:])
