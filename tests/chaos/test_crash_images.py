"""What a power cut at any instant leaves behind: the database and its log, copied while their writer stands still."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.sizes import SEED, reproduce, size

ROOT = Path(__file__).resolve().parents[2]
INSTANTS = size(500, 40)
#: Accepts jobs and moves them on for ever; a job's id is printed once it is accepted, as the API answers 202 then.
WRITER = """
import sys
from bitwright.jobs.store import open_store
store = open_store(sys.argv[1])
while True:
    print(store.create({"kind": "inspect", "model": "x" * 2000}).job.id, flush=True)
    job = store.claim("w")
    store.progress(job.id, job.attempt, "s", 0.5, "m")
    store.succeed(job.id, job.attempt, {"x": "y" * 2000})
"""


def complete_lines(path: Path) -> set[str]:
    return set(path.read_text().rpartition("\n")[0].split())


def faults_of(image: Path, accepted: set[str]) -> list[str]:
    connection = sqlite3.connect(image)
    verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
    there = {row[0] for row in connection.execute("SELECT id FROM jobs")}
    ended = connection.execute("SELECT count(*) FROM jobs WHERE state = 'succeeded'").fetchone()[0]
    told = connection.execute("SELECT count(*) FROM job_events WHERE type = 'succeeded'").fetchone()[0]
    connection.close()
    faults = [] if verdict == "ok" else [verdict]
    faults += [f"{len(accepted - there)} accepted jobs are missing"] if accepted - there else []
    return faults + ([f"{ended} jobs ended, {told} events say so"] if ended != told else [])


def test_no_instant_of_a_crash_loses_an_accepted_job(tmp_path):
    chance, database, log = random.Random(SEED), tmp_path / "jobs.db", tmp_path / "accepted"
    with log.open("wb") as out:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, f"sqlite:///{database}"], stdout=out, cwd=ROOT)
    try:
        while not complete_lines(log):
            assert writer.poll() is None
            time.sleep(0.05)
        for number in range(INSTANTS):
            time.sleep(chance.uniform(0.0, 0.05))
            os.kill(writer.pid, signal.SIGSTOP)
            os.waitpid(writer.pid, os.WUNTRACED)
            image = tmp_path / f"image-{number}.db"
            shutil.copy(database, image)
            if (tmp_path / "jobs.db-wal").exists():
                shutil.copy(tmp_path / "jobs.db-wal", tmp_path / f"image-{number}.db-wal")
            accepted = complete_lines(log)
            os.kill(writer.pid, signal.SIGCONT)
            assert faults_of(image, accepted) == [], f"image {number}, {reproduce('tests/chaos/test_crash_images.py')}"
    finally:
        writer.kill()
        writer.wait()
