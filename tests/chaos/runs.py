"""The long reliability tests, one command each, bounded in time: `make chaos RUN=NAME SEED=7`, or all of them.

    python -m tests.chaos.runs                 the list
    python -m tests.chaos.runs soak locked     these, one after another
    python -m tests.chaos.runs all --short     every one at the size of the suite: does it still run?

Each prints its seed before it starts and its verdict when it ends; the same seed draws the same kills and pauses.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTEST = ("-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-n", "0")


@dataclass(frozen=True)
class Run:
    """minutes: about what it takes on two idle cores; bound: minutes after which it has failed. words: for Python;
    `{jobs}` and the like stand for `full` or `short`."""

    what: str
    minutes: float
    bound: float
    words: tuple[str, ...]
    full: Mapping[str, object] = field(default_factory=dict)
    short: Mapping[str, object] = field(default_factory=dict)

    def command(self, seed: int, *, short: bool) -> list[str]:
        values = {"seed": seed, **(self.short if short else self.full)}
        return [sys.executable, *(word.format(**values) for word in self.words)]


def _test(name: str, what: str, minutes: float, bound: float, only: str = "") -> Run:
    words = (*PYTEST, f"tests/chaos/test_{name}.py", *(("-k", only) if only else ()))
    return Run(what, minutes, bound, words)


def _driver(database: str) -> Run:
    words = ("-m", "tests.chaos.driver", "--jobs", "{jobs}", "--kills", "{kills}", "--workers", "{workers}")
    return Run(
        f"20,000 jobs, 2,000 kill -9 of workers and children, 10 workers, {database}", 35, 90,
        (*words, "--seed", "{seed}", "--seconds", "{seconds}", "--database", database),
        {"jobs": 20_000, "kills": 2_000, "workers": 10, "seconds": 5_000},
        {"jobs": 60, "kills": 6, "workers": 3, "seconds": 300},
    )  # fmt: skip


RUNS: dict[str, Run] = {
    "kill9-ci": _test("chaos", "1,000 jobs, 100 kill -9, on both databases (goal 120 s each)", 3, 15, "killed_workers"),
    "kill9-sqlite": _driver("sqlite"),
    "kill9-postgresql": _driver("postgresql"),
    "stops": _test("chaos", "50 SIGSTOPs beyond the lease, on both databases", 6, 20, "stopped_workers"),
    "recovery": _test("recovery", "worker death to restart of its jobs; SIGTERM hand-over", 5, 25),
    "servers": _test("servers", "Redis FLUSHALL and kill, PostgreSQL kill: 500 queued, 20 running", 3, 30),
    "failpoints": _test("failpoints", "killed at every named place between commit and publish", 6, 30),
    "locked": _test("locked", "10,000 POSTs while the database is locked now and then", 3, 15),
    "poison": _test("poison", "jobs that exit, crash, eat memory, hang", 1, 20),
    "cancel": _test("cancel", "1,000 cancel-against-finish races; cancels of running jobs", 4, 25),
    "crash-images": _test("crash_images", "database and log copied at 500 instants", 1, 10),
    "barrier": _test("barrier_kills", "50 jobs x 200 parts with 100 kills, on both databases", 25, 110),
    "parts": _test("parts_kills", "a plan and its checkpoint cut into 12 parts, 12 kills, on both databases", 8, 60),
    "upgrade": _test("upgrade", "600 jobs by workers of this schema and the first, side by side", 2, 20),
    "soak": _test("soak", "10,000 jobs through one worker, 10,000 through one server", 15, 45),
    "schemathesis": Run(
        "5,000 stateful cases against the real server (needs `make tools CASES=40` once)", 25, 45,
        ("-m", "tests.api.public_tools", "--cases", "{cases}", "--seed", "{seed}", "--seconds", "{seconds}"),
        {"cases": 5000, "seconds": 1500}, {"cases": 40, "seconds": 60},
    ),
}  # fmt: skip


def perform(name: str, seed: int, *, short: bool) -> bool:
    """Whether it passed within its bound."""
    run = RUNS[name]
    environment = {
        **os.environ,
        "BITWRIGHT_TEST_CHAOS_SEED": str(seed),
        "BITWRIGHT_TEST_CHAOS": "" if short else "full",
    }
    print(f"{name}: {run.what}; seed {seed}, at most {run.bound:g} minutes", flush=True)
    begin = time.monotonic()
    process = subprocess.Popen(run.command(seed, short=short), cwd=ROOT, env=environment, start_new_session=True)
    try:
        verdict = "PASSED" if process.wait(60 * run.bound) == 0 else "FAILED"
    except subprocess.TimeoutExpired:
        verdict = "OVER TIME"
    finally:
        _end(process)
    took = time.monotonic() - begin
    print(f"{name}: {verdict} after {took:.0f} s; again: make chaos RUN={name} SEED={seed}", flush=True)
    return verdict == "PASSED"


def _end(process: subprocess.Popen[bytes]) -> None:
    """With time to stop the servers and workers that it has started."""
    for how in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or {', '.join(RUNS)}")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--short", action="store_true", help="at the size of the suite")
    given = parser.parse_args()
    names = list(RUNS) if given.names == ["all"] else given.names
    unknown = sorted(set(names) - set(RUNS))
    if unknown:
        parser.error(f"there is no run {', '.join(unknown)}; there are {', '.join(RUNS)}")
    for name, run in RUNS.items() if not names else ():
        print(f"{name:<17} about {run.minutes:>3g} min, at most {run.bound:>3g}: {run.what}")
    failed = [name for name in names if not perform(name, given.seed, short=given.short)]
    if names:
        print(f"{len(names) - len(failed)} of {len(names)} passed{': failed ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
