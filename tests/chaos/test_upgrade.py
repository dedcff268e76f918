"""A fleet is upgraded while it works: workers of the schema before this one beside workers of this one.

The program before is this repository at OLD. Where its history is not at hand (a source archive), the test says so.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bitwright.jobs import migrate
from bitwright.jobs.store import open_store
from tests.chaos.fleet import ROOT, Fleet, faults_of_history, quick_settings, wait_for
from tests.chaos.sizes import size

#: The last commit whose schema was 0001.
OLD = "a7a2e4d"
JOBS = size(300, 15)


def old_program(folder: Path) -> Path:
    done = subprocess.run(
        ["git", "archive", OLD, "bitwright", "worker", "tests/chaos"], cwd=ROOT, capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"the history of this repository is not at hand: {done.stderr.decode()[:200]}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        # Debian's Python 3.11.2 has no filters yet (PEP 706); the archive is our own history either way.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return folder


OLD_STORE = """
import sys
sys.path.insert(0, sys.argv[1])
from bitwright.jobs.store import open_store
from bitwright.jobs.migrate import HEAD
store = open_store(sys.argv[2])
for number in range(int(sys.argv[3])):
    store.create({"kind": "inspect", "model": str(number)})
print(HEAD)
"""


@pytest.mark.timeout(600)
def test_old_and_new_workers_do_one_queue_together(database_url, tmp_path):
    old = old_program(tmp_path / "old")
    (tmp_path / "state").mkdir()
    settings = quick_settings(tmp_path / "state", database_url)
    if database_url is not None:
        pytest.importorskip("psycopg")
        _drop_everything(database_url)
    made = subprocess.run(
        [sys.executable, "-c", OLD_STORE, str(old), settings.resolved_database_url, str(JOBS)],
        capture_output=True, text=True, check=True, cwd=old,
    )  # fmt: skip
    assert made.stdout.strip() < migrate.HEAD
    before = Fleet.__new__(Fleet)
    before.settings, before.steps, before.slots, before.root = settings, "tests.chaos.effects:run", 1, old
    before.workers = []
    before.start(2)
    log = settings.state_dir / "workers.log"
    wait_for(lambda: "started" in log.read_text(), 120, "the old workers do not start")
    after = Fleet(settings, slots=1)  # migrates, while the old ones work
    try:
        after.start(2)
        for number in range(JOBS, 2 * JOBS):
            after.store.create({"kind": "inspect", "model": str(number)})
        wait_for(lambda: after.left == 0, 300, "jobs did not end")
        jobs = after.store.page(limit=1000)
        assert len(jobs) == 2 * JOBS
        assert {job.state for job in jobs} == {"succeeded"}
        assert [fault for job in jobs for fault in faults_of_history(after.store, job.id)] == []
        print(f"{len(jobs)} jobs done by old and new workers together")
    finally:
        for fleet in (before, after):
            for process in list(fleet.workers):
                fleet.kill(process)
        after.store.close()


def test_a_program_that_the_schema_no_longer_serves_says_so_and_touches_nothing(tmp_path):
    """The first schema had no word for what still serves it: its program, started after the migration, must refuse."""
    old = old_program(tmp_path / "old")
    store = open_store(f"sqlite:///{tmp_path / 'jobs.db'}")
    job = store.create({"kind": "inspect", "model": "x"}).job
    words = [sys.executable, "-c", OLD_STORE, str(old), f"sqlite:///{tmp_path / 'jobs.db'}", "1"]
    refused = subprocess.run(words, capture_output=True, text=True, check=False, cwd=old)
    assert refused.returncode != 0
    assert "InvalidSetting: the job database was made by a newer version of bitwright" in refused.stderr
    assert "upgrade bitwright on this host" in refused.stderr
    assert [one.id for one in store.page(limit=10)] == [job.id]
    assert migrate.revision(store.database) == migrate.HEAD
    store.close()


def _drop_everything(url: str) -> None:
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
