"""Workers killed and stopped at random while they work off a heap of small jobs, and the check of what happened.

    python -m tests.chaos.driver --jobs 1000 --kills 100 --stops 50 --seed 7 [--database postgresql]

Two thirds of the kills hit a job's child, the rest a whole worker; stops hold a worker beyond its lease and then let it
go on (a zombie). Nothing is cleaned up for the dead: leases, fences and the reaper must do it all.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import select

from bitwright.jobs import tables
from bitwright.jobs.create import NewJob
from bitwright.jobs.states import RUNNING
from bitwright.jobs.values import Created
from tests.chaos.fleet import Fleet, bury, children, faults_of_history, quick_settings
from tests.servers import postgresql_server


@dataclass
class Report:
    """What was done to the workers, and what was found in the history."""

    seed: int
    jobs: int
    kills: int = 0
    stops: int = 0
    seconds: float = 0.0
    stale: int = 0
    attempts: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.jobs} jobs, {self.kills} kills, {self.stops} stops, {self.attempts} attempts, "
            f"{self.stale} stale writes rejected, {self.seconds:.0f} s, {len(self.faults)} faults"
        )


class Chaos:
    """Some workers on one database. `folder` holds their state."""

    def __init__(self, url: str | None, folder: Path, seed: int, *, workers: int = 3, slots: int = 2) -> None:
        self.settings = quick_settings(folder, url)
        self.fleet = Fleet(self.settings, slots=slots)
        self.store = self.fleet.store
        self.random = random.Random(seed)
        self.report = Report(seed, 0)
        self._frozen: list[tuple[float, subprocess.Popen[str]]] = []
        self.fleet.start(workers)

    def run(self, jobs: int, kills: int, seconds: float, *, stops: int = 0) -> Report:
        """Submit, kill and stop in step with the jobs that end, and wait for every job to end."""
        start, report = time.monotonic(), self.report
        ids = self._submit(0, jobs)
        while (left := self.fleet.left) or report.stops < stops or report.kills < kills:
            if time.monotonic() - start > seconds:
                report.faults.append(f"{left} jobs had not ended after {seconds:.0f} s")
                break
            ended = (jobs - left) / (0.8 * jobs)
            if report.kills < kills and ended >= report.kills / kills:
                self._strike()
            elif report.stops < stops and ended >= report.stops / stops:
                self._freeze()
            if (report.stops < stops or report.kills < kills) and left < 2 * self.fleet.slots:  # too few to strike at
                ids |= self._submit(len(ids), 10)
            self._thaw()
            time.sleep(0.02 if report.kills < kills or report.stops < stops else 0.2)
        report.jobs = len(ids)
        report.seconds = time.monotonic() - start
        self._wake_all()
        for process in list(self.fleet.workers):
            self.fleet.kill(process, signal.SIGTERM)
        self._check(ids)
        return report

    def _submit(self, first: int, count: int) -> dict[str, int]:
        numbers = range(first, first + count)
        answers = self.store.create_many([NewJob({"kind": "inspect", "model": str(n)}) for n in numbers])
        return {answer.job.id: n for answer, n in zip(answers, numbers, strict=True) if isinstance(answer, Created)}

    def close(self) -> None:
        self._wake_all()
        self.fleet.close()

    def _strike(self) -> None:
        process = self.random.choice(self.fleet.workers)
        pids = children(process)
        if not pids:
            return
        self.report.kills += 1
        if self.random.random() < 0.67:
            with suppress(ProcessLookupError):
                os.kill(self.random.choice(pids), signal.SIGKILL)
            return
        self.fleet.kill(process)
        self.fleet.start()

    def _freeze(self) -> None:
        """Stop a worker that holds a job until its lease has long run out; another one takes its place."""
        busy = [process for process in self.fleet.workers if children(process)]
        if len(self._frozen) >= 4 or not busy:
            return
        process = self.random.choice(busy)
        os.kill(process.pid, signal.SIGSTOP)
        if not self._holds(process):  # its job had just ended: a stop that tests nothing
            os.kill(process.pid, signal.SIGCONT)
            return
        self.fleet.workers.remove(process)
        self._frozen.append((time.monotonic() + self.settings.lease_seconds * 1.5, process))
        self.report.stops += 1
        self.fleet.start()

    def _holds(self, process: subprocess.Popen[str]) -> bool:
        """Whether the table says that a job is that worker's, once it is really stopped (`worker.pool.new_owner`)."""
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        with self.store.database.read() as tx:
            found = select(tables.jobs.c.owner).where(tables.jobs.c.state == RUNNING)
            owners = tx.connection.execute(found).scalars().all()
        return any(f"-{process.pid}-" in owner for owner in owners if owner)

    def _thaw(self) -> None:
        """Wake those whose jobs have been taken back; one that was stopped inside a write of SQLite keeps everybody
        from taking anything back, so none sleeps for ever."""
        for until, process in list(self._frozen):
            late = time.monotonic() - until
            if late > 3 * self.settings.lease_seconds or (late > 0 and not self._holds(process)):
                self._frozen.remove((until, process))
                self._wake(process)

    def _wake(self, process: subprocess.Popen[str]) -> None:
        """Time to say what it still wants to say, then it goes."""
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.05)
        process.terminate()
        bury(process)

    def _wake_all(self) -> None:
        for _, process in self._frozen:
            self._wake(process)
        self._frozen.clear()

    def _check(self, ids: dict[str, int]) -> None:
        """Every job: one end, attempts in order, the answer of its last attempt and of no other job or attempt."""
        faults = self.report.faults
        for job_id, number in ids.items():
            job = self.store.get(job_id)
            self.report.attempts += job.attempt
            faults += faults_of_history(self.store, job_id)
            if job.state != "succeeded" or job.result["number"] != number or job.result["attempt"] != job.attempt:
                faults.append(f"job {number} is {job.state} with {job.result}, attempt {job.attempt}")
        marks = (self.settings.state_dir / "effects").read_text().split("\n")
        if {int(mark.split()[0]) for mark in marks if mark} != set(ids.values()):
            faults.append("some jobs succeeded without having worked")
        log = (self.settings.state_dir / "workers.log").read_text(errors="replace")
        self.report.stale = log.count("lost to another worker")
        if self.store.database.is_sqlite:
            with self.store.database.read() as tx:
                verdict = tx.connection.exec_driver_sql("PRAGMA integrity_check").scalar()
            if verdict != "ok":
                faults.append(f"integrity: {verdict}")


@contextmanager
def _database(name: str) -> Iterator[str | None]:
    """The address of a new PostgreSQL; None for SQLite."""
    if name == "sqlite":
        yield None
        return
    with postgresql_server() as server:
        assert server is not None, "no PostgreSQL on this host"
        yield server.url


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stops", type=int, default=0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite", help="started for this run")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bitwright-chaos-"))
    with _database(chosen.database) as url:
        chaos = Chaos(url, folder, chosen.seed, workers=chosen.workers)
        try:
            report = chaos.run(chosen.jobs, chosen.kills, chosen.seconds, stops=chosen.stops)
        finally:
            chaos.close()
    print(report, *report.faults[:20], sep="\n")
    if not report.faults:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
