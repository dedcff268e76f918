"""PostgreSQL and Redis killed, emptied and restarted under work, with Celery workers on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bitwright.core.errors import Temporary
from bitwright.jobs.store import JobStore, open_store
from bitwright.settings import Settings
from tests.chaos.fleet import ROOT, faults_of_history, quick_settings, wait_for
from tests.chaos.sizes import size, within
from tests.servers import postgresql_server, redis_server
from tests.worker.conftest import FAKE_STEPS, request_for

QUEUED, RUNNING = size(500, 20), size(20, 2)
#: Seconds until workers take jobs again.
AGAIN = 15.0
WORK = """
import sys, json
from bitwright.settings import Settings
from worker.main import work
sys.exit(work(Settings(**json.loads(sys.argv[1])), queues=("cpu",), slots=int(sys.argv[3]), steps=sys.argv[2]))
"""


@contextmanager
def celery_workers(settings: Settings, count: int, slots: int) -> Iterator[None]:
    values = json.dumps(settings.model_dump(mode="json"))
    with (settings.state_dir / "workers.log").open("ab") as log:
        command = [sys.executable, "-c", WORK, values, FAKE_STEPS, str(slots)]
        workers = [subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=os.environ) for _ in range(count)]
    try:
        yield
    finally:
        for process in workers:
            process.kill()
            process.wait()


def busy(store: JobStore) -> list[str]:
    """Long jobs in every slot, and many short ones behind them; their ids."""
    held = [store.create(request_for("sleep/8")).job.id for _ in range(RUNNING)]
    wait_for(lambda: store.statistics().states["running"] == RUNNING, 120, "the workers do not start")
    return held + [store.create(request_for("answer")).job.id for _ in range(QUEUED)]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("trouble", ["emptied broker", "killed broker", "killed database"])
def test_no_job_is_lost_and_work_goes_on(tmp_path, trouble):
    with postgresql_server() as database, redis_server() as broker:
        if database is None or broker is None:
            pytest.skip("no PostgreSQL or no Redis on this host (install Debian's `postgresql redis-server`)")
        settings = quick_settings(
            tmp_path, database.url, broker_url=broker.url, relay_seconds=0.2, heal_seconds=2.0, lease_seconds=10.0,
            tenant_queued_jobs=10_000,
        )  # fmt: skip
        store = open_store(settings.resolved_database_url)
        with celery_workers(settings, 2, RUNNING // 2):
            ids = busy(store)
            if trouble == "emptied broker":
                subprocess.run(["redis-cli", "-u", broker.url, "FLUSHALL"], check=True, stdout=subprocess.DEVNULL)
                broker.restart()
            else:
                (broker if trouble == "killed broker" else database).restart(signal.SIGKILL)
            moment = time.time()
            if trouble != "killed database":
                ids.append(store.create(request_for("answer")).job.id)
            wait_for(lambda: _started_since(store, ids, moment), 120, "nobody takes jobs any more")
            again = time.time() - moment
            wait_for(lambda: _all_done(store), 600, "jobs were lost")
        print(f"{trouble}: consuming again after {again:.1f} s")
        for job_id in ids:
            assert store.get(job_id).state == "succeeded"
            assert faults_of_history(store, job_id) == []
        assert again <= within(AGAIN) + 8, "long jobs of 8 s held every slot at the moment of the trouble"
        store.close()


def _started_since(store: JobStore, ids: list[str], moment: float) -> bool:
    try:
        with store.database.read() as tx:
            found = tx.connection.exec_driver_sql(
                f"SELECT count(*) FROM job_events WHERE type = 'started' AND at > {moment}"
            )
            return bool(found.scalar_one())
    except Temporary:  # it is just coming back
        return False


def _all_done(store: JobStore) -> bool:
    states = store.statistics().states
    return states["queued"] + states["running"] == 0
