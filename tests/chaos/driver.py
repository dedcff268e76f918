"""Workers killed and stopped at random while they work off a heap of small jobs, and the check of what happened.

    python -m tests.chaos.driver --jobs 1000 --kills 100 --seed 7 [--url postgresql+psycopg://...]

Half of the kills hit a job's child, the rest a whole worker; each tenth one stops a worker beyond its lease and then
lets it go on (a zombie). Nothing is cleaned up for the dead: leases, fences and the reaper must do it all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bitwright.jobs.states import TERMINAL
from bitwright.jobs.store import JobStore, open_store
from bitwright.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
STEPS = "tests.chaos.effects:run"
LEASE = 2.0


@dataclass
class Report:
    """What was done to the workers, and what was found in the history."""

    seed: int
    jobs: int
    kills: int = 0
    stops: int = 0
    seconds: float = 0.0
    attempts: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.jobs} jobs, {self.kills} kills, {self.stops} stops, {self.attempts} attempts, "
            f"{self.seconds:.0f} s, {len(self.faults)} faults"
        )


class Chaos:
    """Some workers on one database. `folder` holds their state."""

    def __init__(self, url: str | None, folder: Path, seed: int, *, workers: int = 3, slots: int = 2) -> None:
        self.settings = Settings(
            state_dir=folder, database_url=url, lease_seconds=LEASE, renew_seconds=0.4, reaper_seconds=0.3,
            poll_seconds=0.1, cancel_seconds=0.5, max_attempts=100,
        )  # fmt: skip
        self.store: JobStore = open_store(self.settings.resolved_database_url)
        self.random = random.Random(seed)
        self.report = Report(seed, 0)
        self._slots = slots
        self._workers: list[subprocess.Popen[str]] = []
        self._frozen: list[tuple[float, subprocess.Popen[str]]] = []
        for _ in range(workers):
            self._start()

    def run(self, jobs: int, kills: int, seconds: float) -> Report:
        """Submit, kill until `kills` is reached, and wait for every job to end."""
        start = time.monotonic()
        ids = {self.store.create({"kind": "inspect", "model": str(n)}).job.id: n for n in range(jobs)}
        self.report.jobs = jobs
        while self._left():
            if time.monotonic() - start > seconds:
                self.report.faults.append(f"{self._left()} jobs had not ended after {seconds:.0f} s")
                break
            if self.report.kills < kills and jobs - self._left() >= 0.8 * jobs * self.report.kills / kills:
                self._strike()  # spread over the run: kills come in step with the jobs that end
            self._thaw()
            time.sleep(0.02 if self.report.kills < kills else 0.2)
        self.report.seconds = time.monotonic() - start
        self.stop()
        self._check(ids)
        return self.report

    def stop(self) -> None:
        for process in self._workers:
            process.terminate()
        for process in self._workers:
            _bury(process)
        self._workers.clear()

    def close(self) -> None:
        self.stop()
        self.store.close()

    def _left(self) -> int:
        states = self.store.statistics().states
        return states["queued"] + states["running"]

    def _start(self) -> None:
        command = [sys.executable, "-m", "worker.pool", "--supervised", "--steps", STEPS, "--slots", str(self._slots)]
        log = (self.settings.state_dir / "workers.log").open("ab")
        with log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, start_new_session=True
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.settings.model_dump(mode="json")) + "\n")
        process.stdin.flush()
        self._workers.append(process)

    def _strike(self) -> None:
        process = self.random.choice(self._workers)
        children = self._children(process)
        if not children:
            return
        chance = self.random.random()
        if chance < 0.6:
            with suppress(ProcessLookupError):
                os.kill(self.random.choice(children), signal.SIGKILL)
                self.report.kills += 1
        elif chance < 0.9:
            process.kill()
            _bury(process)
            self._workers.remove(process)
            self.report.kills += 1
            self._start()
        elif not self._frozen:
            os.kill(process.pid, signal.SIGSTOP)
            self._workers.remove(process)
            self._frozen.append((time.monotonic() + LEASE * 1.5, process))
            self.report.stops += 1
            self._start()

    def _thaw(self) -> None:
        for until, process in list(self._frozen):
            if time.monotonic() > until:
                os.kill(process.pid, signal.SIGCONT)
                self._frozen.remove((until, process))
                process.terminate()
                _bury(process)
        if not self._left():
            for _, process in self._frozen:
                process.kill()
                _bury(process)
            self._frozen.clear()

    def _children(self, process: subprocess.Popen[str]) -> list[int]:
        try:
            return [child.pid for child in psutil.Process(process.pid).children()]
        except psutil.NoSuchProcess:
            return []

    def _check(self, ids: dict[str, int]) -> None:
        """The history of every job: one end, attempts in order, the answer of the last attempt and of no other job."""
        faults = self.report.faults
        for job_id, number in ids.items():
            job = self.store.get(job_id)
            events = self.store.events_after(job_id)
            types = [event.type for event in events]
            started = [event.data["attempt"] for event in events if event.type == "started"]
            self.report.attempts += len(started)
            if job.state != "succeeded" or job.result["number"] != number:
                faults.append(f"job {number} is {job.state} with {job.result}")
            if sum(kind in TERMINAL for kind in types) != 1 or types[-1] not in TERMINAL:
                faults.append(f"job {number} ended not exactly once: {types}")
            if started != list(range(1, len(started) + 1)) or started[-1:] != [job.attempt]:
                faults.append(f"job {number} has attempts {started}, token {job.attempt}")
            if types.count("requeued") != len(started) - 1:
                faults.append(f"job {number} was requeued {types.count('requeued')} times for {len(started)} attempts")
        marks = (self.settings.state_dir / "effects").read_text().split("\n")
        if {int(mark.split()[0]) for mark in marks if mark} != set(ids.values()):
            faults.append("some jobs succeeded without having worked")
        if self.store.database.is_sqlite:
            with self.store.database.read() as tx:
                verdict = tx.connection.exec_driver_sql("PRAGMA integrity_check").scalar()
            if verdict != "ok":
                faults.append(f"integrity: {verdict}")


def _bury(process: subprocess.Popen[str]) -> None:
    process.wait(60)
    assert process.stdin is not None
    process.stdin.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--url", help="PostgreSQL; default: SQLite in a new folder")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bitwright-chaos-"))
    chaos = Chaos(chosen.url, folder, chosen.seed, workers=chosen.workers)
    try:
        report = chaos.run(chosen.jobs, chosen.kills, chosen.seconds)
    finally:
        chaos.close()
    print(report, *report.faults[:20], sep="\n")
    if not report.faults:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
