"""The compiled solver at scale: against one streaming read, from disk, and the frontier. Used by benchmarks.solvers.

CPU seconds of this process (a shared machine stretches wall seconds), or of the clock with several threads; best of
interleaved repetitions. A read takes as many threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from bitwright.core.certificate import verify
from bitwright.core.problem import Limit, Problem, compact_bits
from bitwright.core.problem_file import load_problem
from solvers import native, solve
from solvers.frontier import frontier
from tests.solvers.instances import RATES, instance


def stream(
    sizes: list[int],
    formats: list[int],
    families: list[str],
    budgets: list[str],
    *,
    seeds: int = 1,
    threads: int = 1,
    repeats: int = 9,
) -> None:
    """Whole solves against one read of the table (losses, and sizes where they differ) in this process.

    It stays on as many processors as there are threads, so that a frontier takes no more of them.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    print("| n | k | sizes | seed | bits | read ms | solve ms | solve / read | of medians | frontier / read ", end="")
    print("| bytes a unit | listed | gap |\n|" + "---|" * 13)
    for n, k, family, seed in product(sizes, formats, families, range(seeds)):
        for line in _lines(table(family, n, k, seed), family, seed, budgets, threads, repeats):
            print(line, flush=True)


def table(family: str, n: int, k: int, seed: int = 0, block: int = 1 << 20) -> Problem:
    """Float32, every row drawn, `block` of them at a time (the draws take five times the memory of the table)."""
    loss, size = np.empty((n, k), np.float32), np.empty(n, np.int64)
    for number, begin in enumerate(range(0, n, block)):
        rows = slice(begin, min(begin + block, n))
        drawn = instance(family, rows.stop - begin, k, seed + 1_000_000 * number)
        drawn_size = drawn.resources[0].size
        assert drawn_size is not None
        size[rows] = drawn_size
        # Losses of an instance add up to one: back to one scale for all blocks.
        np.multiply(drawn.loss, size[rows].sum(dtype=float), out=loss[rows], casting="unsafe")
    return Problem(loss, (compact_bits(size, RATES[k], 16),), (Limit("bits", int(3.5 * 16 * int(size.sum()))),))


def bits_of(budget: str, k: int) -> float:
    """Average bits of a unit of size: `3.5`, or `10%` of the way from the cheapest format to the dearest."""
    if not budget.endswith("%"):
        return float(budget)
    low, high = min(RATES[k]) / 16, max(RATES[k]) / 16
    return low + float(budget[:-1]) / 100 * (high - low)


def _lines(problem: Problem, family: str, seed: int, budgets: list[str], threads: int, repeats: int) -> Iterator[str]:
    resource, k = problem.resources[0], problem.k
    uneven = resource.sizes.least != resource.sizes.most
    bounds = [int(bits_of(budget, k) * 16 * resource.sizes.total) for budget in budgets]
    clock = time.process_time if threads == 1 else time.perf_counter
    fronts: list[float] = []
    reads: list[list[float]] = [[] for _ in bounds]
    solves: list[list[float]] = [[] for _ in bounds]
    listed = [0 for _ in bounds]
    for _ in range(repeats):
        for q, bound in enumerate(bounds):
            begin = clock()
            native.read_seconds(problem.loss, threads)
            if uneven:
                native.read_seconds(resource.size, threads)
            middle = clock()
            answer = native.solve_table(
                problem.loss, bound, size=resource.size, rate=resource.rate, sizes=resource.sizes, threads=threads
            )
            end = clock()
            reads[q].append(middle - begin)
            solves[q].append(end - middle)
            listed[q] = answer.listed
        begin = clock()
        frontier(problem)
        fronts.append(clock() - begin)
    row = k * 4 + 4 + (8 if uneven else 0)
    for budget, bound, read, taken, rows in zip(budgets, bounds, reads, solves, listed, strict=True):
        given = replace(problem, limits=(Limit("bits", bound),))
        solution = solve(given, "hull")
        assert verify(given, solution.choice, solution.certificate).ok
        proved = "proved" if solution.certificate.status == "optimal" else "stated"
        yield (
            f"| {problem.n:.0e} | {k} | {family} | {seed} | {budget} | {min(read) * 1e3:.1f} | {min(taken) * 1e3:.1f} "
            f"| {min(taken) / min(read):.2f} | {np.median(taken) / np.median(read):.2f} "
            f"| {min(fronts) / min(read):.2f} | {1 + rows * row / problem.n:.2f} | {rows} "
            f"| {solution.certificate.relative_gap:.1e} {proved} |"
        )


def disk(sizes: list[int], folder: str | None) -> None:
    """Solve a file that is mapped, not read, in a process of its own: wall seconds and its peak resident memory."""
    print("| n | k | file GB | write s | read s | solve process s | peak resident MiB | status |\n|" + "---|" * 8)
    for n in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place) / "problem.npz"
            begin = time.perf_counter()
            write(path, n)
            wrote = time.perf_counter()
            with path.open("rb", buffering=0) as file:
                buffer = bytearray(1 << 24)
                while file.readinto(buffer):
                    pass
            read = time.perf_counter()
            command = [sys.executable, "-m", "benchmarks.solver_scale", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - read
            peak, status = done.stdout.split(maxsplit=1)
            size = path.stat().st_size / 1e9
            print(
                f"| {n:.0e} | 4 | {size:.1f} | {wrote - begin:.0f} | {read - wrote:.1f} | {seconds:.1f} | {peak} "
                f"| {status.strip()} |",
                flush=True,
            )


def write(path: Path, n: int, block: int = 1 << 20) -> None:
    """A problem of n rows and 4 formats, equal sizes, block by block: `groups`, each row scaled by its own factor."""
    one = instance("groups", block, 4, 0, dtype=np.float32)
    rng = np.random.default_rng(0)
    arrays = {"rate": np.array(RATES[4]), "rate_den": np.array(16), "limit_bits": np.array(int(3.5 * 16 * 128) * n)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array)
        header = np.lib.format.header_data_from_array_1_0
        with archive.open("loss.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, {**header(one.loss), "shape": (n, 4)})
            for begin in range(0, n, block):
                count = min(block, n - begin)
                factor = rng.random((count, 1), dtype=np.float32) + np.float32(0.5)
                file.write((one.loss[:count] * factor).tobytes())
        same = np.full(block, 128)
        with archive.open("size.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, {**header(same), "shape": (n,)})
            for begin in range(0, n, block):
                file.write(same[: min(block, n - begin)].tobytes())


def child(path: str) -> None:
    """Load and solve a file; print the peak resident memory in MiB and the outcome."""
    begin = time.perf_counter()
    problem = load_problem(path)
    loaded = time.perf_counter()
    solution = solve(problem, time_limit=600)
    seconds = time.perf_counter() - loaded
    # The high-water mark of this program alone (getrusage counts what the parent held at the fork).
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    gap = solution.certificate.relative_gap
    print(peak, f"{solution.certificate.status}, gap {gap:.0e}, loaded {loaded - begin:.1f} s, solved {seconds:.1f} s")


if __name__ == "__main__":
    child(sys.argv[1])
