"""The compiled solver at scale: against one streaming read, from disk, and the frontier. Used by benchmarks.solvers.

CPU seconds of this process (a shared machine stretches wall seconds), or of the clock with several threads; best of
interleaved repetitions. A read takes as many threads.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from bitwright.core.certificate import verify
from bitwright.core.problem import Limit, Problem, compact_bits
from bitwright.core.problem_file import load_problem
from solvers import native, solve
from solvers.frontier import frontier
from tests.solvers.instances import RATES, instance


def stream(sizes: list[int], formats: list[int], threads: int = 1, repeats: int = 9) -> None:
    """Whole solves against one read of the table (losses, and sizes where they differ) in this process."""
    print("| n | k | sizes | read ms | solve ms | solve / read | of medians | frontier / read | bytes a unit |", end="")
    print(" listed | gap |")
    print("|" + "---|" * 11)
    for n in sizes:
        for k in formats:
            for family in ("groups", "hetero"):
                problem = table(family, n, k)
                print(_row(problem, family, threads, repeats), flush=True)


def table(family: str, n: int, k: int, block: int = 1 << 20) -> Problem:
    """Float32; beyond `block` rows, the rows of a shorter table again, each scaled by its own factor."""
    one = instance(family, min(n, block), k, 0, dtype=np.float32)
    if n <= block:
        return one
    rng, copies = np.random.default_rng(0), -(-n // block)
    loss = np.empty((n, k), np.float32)
    for begin in range(0, n, block):
        count = min(block, n - begin)
        factor = rng.random((count, 1), dtype=np.float32) + np.float32(0.5)
        np.multiply(one.loss[:count], factor, out=loss[begin : begin + count])
    size = one.resources[0].size
    assert size is not None
    size = np.tile(size, copies)[:n]
    return Problem(loss, (compact_bits(size, RATES[k], 16),), (Limit("bits", int(3.5 * 16 * int(size.sum()))),))


def _row(problem: Problem, family: str, threads: int, repeats: int) -> str:
    resource, bound = problem.resources[0], int(problem.limits[0].value)
    uneven = resource.sizes.least != resource.sizes.most
    clock = time.process_time if threads == 1 else time.perf_counter
    reads, solves, fronts = [], [], []
    for _ in range(repeats):
        begin = clock()
        native.read_seconds(problem.loss, threads)
        if uneven:
            native.read_seconds(resource.size, threads)
        middle = clock()
        answer = native.solve_table(
            problem.loss, bound, size=resource.size, rate=resource.rate, sizes=resource.sizes, threads=threads
        )
        end = clock()
        frontier(problem)
        fronts.append(clock() - end)
        reads.append(middle - begin)
        solves.append(end - middle)
    solution = solve(problem, "hull")
    assert verify(problem, solution.choice, solution.certificate).ok
    row = problem.k * 4 + 4 + (8 if uneven else 0)
    held = 1 + answer.listed * row / problem.n
    return (
        f"| {problem.n:.0e} | {problem.k} | {family} | {min(reads) * 1e3:.1f} | {min(solves) * 1e3:.1f} "
        f"| {min(solves) / min(reads):.2f} | {np.median(solves) / np.median(reads):.2f} "
        f"| {min(fronts) / min(reads):.2f} | {held:.2f} | {answer.listed} "
        f"| {solution.certificate.relative_gap:.1e} |"
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
