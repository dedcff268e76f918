"""Distributed mode on real parts: PostgreSQL, Redis and Celery workers, and what happens when each of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bitwright.core.errors import InvalidSetting
from bitwright.jobs.store import JobStore, open_store
from bitwright.settings import Settings
from tests.servers import Server, postgresql_server, redis_server
from tests.worker.conftest import FAKE_STEPS, fast_settings, request_for, wait_until
from worker.celery_app import broker_of, make_app
from worker.relay import BrokerDown, Relay

ROOT = Path(__file__).resolve().parents[2]
WORK = "from worker.main import work; from bitwright.settings import load_settings; import sys; "
WORK += f"sys.exit(work(load_settings(), queues=sys.argv[1:], slots=2, steps={FAKE_STEPS!r}))"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with postgresql_server() as database, redis_server() as broker:
        if database is None or broker is None:
            pytest.skip("no PostgreSQL or no Redis on this host (install Debian's `postgresql redis-server`)")
        yield database, broker


@pytest.fixture
def settings(servers: tuple[Server, Server], tmp_path: Path) -> Settings:
    database, broker = servers
    return fast_settings(
        tmp_path, database_url=database.url, broker_url=broker.url, relay_seconds=0.1, heal_seconds=0.5
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[JobStore]:
    store = open_store(settings.resolved_database_url)
    yield store
    for job in store.page(states=["queued"], limit=1000):
        store.cancel(job.id)
    store.close()


@pytest.fixture
def start_worker(settings: Settings) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    chosen = settings.model_dump(mode="json", exclude={"model_roots"}, exclude_none=True)
    environment = {**os.environ, **{f"BITWRIGHT_{name.upper()}": str(value) for name, value in chosen.items()}}

    def start(*queues: str) -> subprocess.Popen[bytes]:
        log = (settings.state_dir / f"worker-{len(started)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-c", WORK, *queues], env=environment, cwd=ROOT, stderr=log, stdout=log
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def submit(store: JobStore, work: str, count: int = 1, **options: object) -> list[str]:
    return [store.create(request_for(work), **options).job.id for _ in range(count)]


def all_in(store: JobStore, ids: list[str], state: str = "succeeded") -> bool:
    return all(store.get(job_id).state == state for job_id in ids)


def test_a_ring_brings_a_job_to_a_worker_of_its_queue(store, start_worker):
    start_worker("cpu")
    for_gpu = submit(store, "answer", queue="gpu")
    for_cpu = submit(store, "answer", 6)
    wait_until(lambda: all_in(store, for_cpu))
    assert all_in(store, for_gpu, "queued")
    start_worker("gpu", "solve")
    wait_until(lambda: all_in(store, for_gpu))


def test_an_emptied_broker_loses_no_job(store, start_worker, servers, settings):
    start_worker("cpu")
    held = submit(store, "hang", 2)
    wait_until(lambda: all_in(store, held, "running"))
    waiting = submit(store, "answer", 6)
    wait_until(lambda: store.statistics().unsent == 0)
    subprocess.run(["redis-cli", "-u", servers[1].url, "FLUSHALL"], check=True, stdout=subprocess.DEVNULL)
    store.cancel(held[0])
    wait_until(lambda: all_in(store, waiting))
    store.cancel(held[1])


def test_a_broker_that_restarts_loses_no_job(store, start_worker, servers):
    start_worker("cpu")
    first = submit(store, "answer")
    wait_until(lambda: all_in(store, first))
    servers[1].stop(signal.SIGKILL)
    ids = submit(store, "answer", 4)
    servers[1].restart()
    wait_until(lambda: all_in(store, ids))


def test_a_database_that_restarts_loses_no_job(store, start_worker, servers, settings):
    start_worker("cpu")
    running = submit(store, "until/go", 2)
    wait_until(lambda: all_in(store, running, "running"))
    servers[0].restart(signal.SIGQUIT)
    (settings.state_dir / "go").touch()
    wait_until(lambda: all_in(store, running))
    later = submit(store, "answer", 3)
    wait_until(lambda: all_in(store, later))


def test_a_killed_worker_loses_no_job(store, start_worker, settings):
    doomed = start_worker("cpu")
    ids = submit(store, "until/go", 2)
    wait_until(lambda: all_in(store, ids, "running"))
    doomed.kill()
    doomed.wait()
    (settings.state_dir / "go").touch()
    start_worker("cpu")
    wait_until(lambda: all_in(store, ids))
    assert {store.get(job_id).tries for job_id in ids} == {1}


def test_sigterm_gives_running_jobs_back(store, start_worker):
    worker = start_worker("cpu")
    ids = submit(store, "hang", 2)
    wait_until(lambda: all_in(store, ids, "running"))
    worker.terminate()
    assert worker.wait(30) == 0
    assert all_in(store, ids, "queued")
    assert {store.get(job_id).tries for job_id in ids} == {0}


def test_a_retry_is_rung_when_it_is_due(store, start_worker):
    start_worker("cpu")
    ids = submit(store, "fail-until/2")
    wait_until(lambda: all_in(store, ids))


def test_a_broker_that_is_away_leaves_messages_in_the_outbox(store, settings):
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    relay = Relay(store, broker_of(make_app(away)), away)
    submit(store, "answer")
    with pytest.raises(BrokerDown):
        relay.turn()
    assert store.statistics().unsent == 1
    assert Relay(store, broker_of(make_app(settings)), settings).turn()
    assert store.statistics().unsent == 0


def test_distributed_mode_asks_for_its_parts(tmp_path):
    with pytest.raises(InvalidSetting, match="broker"):
        make_app(Settings(state_dir=tmp_path))
    with pytest.raises(InvalidSetting, match="every host"):
        make_app(Settings(state_dir=tmp_path, broker_url="redis://127.0.0.1:1/0"))
