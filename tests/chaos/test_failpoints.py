"""Killed at every named place between a commit and what follows it: no job is orphaned, none is done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from bitwright.jobs import failpoints
from bitwright.jobs.store import open_store
from tests.chaos.fleet import ROOT, faults_of_history, fleet, quick_settings, wait_for
from tests.chaos.sizes import size, within
from tests.servers import redis_server
from tests.worker.conftest import FAKE_STEPS, request_for

JOBS = size(20, 2)
SERVE = """
import sys, json
from bitwright.settings import Settings
from service.server import serve
settings = Settings(**json.loads(sys.argv[1]))
serve(settings, host="127.0.0.1", port=0, ready=lambda host, port: print(port, flush=True))
"""
RELAY = """
import sys, json
from bitwright.settings import Settings
from worker.main import work
settings = Settings(**json.loads(sys.argv[1]))
sys.exit(work(settings, queues=("cpu",), slots=2, steps=sys.argv[2]))
"""


def test_every_failpoint_stands_in_the_code_and_here():
    names = {getattr(failpoints, name) for name in dir(failpoints) if name.isupper()} - {
        failpoints.API, failpoints.WORKER, failpoints.RELAY, failpoints.WEBHOOKS, failpoints._VARIABLE,
    }  # fmt: skip
    tested = {*failpoints.API, *failpoints.WORKER, *failpoints.RELAY, *failpoints.WEBHOOKS}
    assert {name for name in names if isinstance(name, str)} == tested


@contextmanager
def program(code, settings, *words, failpoint=None, **more):
    environment = {**os.environ, **({"BITWRIGHT_TEST_FAILPOINT": failpoint} if failpoint else {})}
    values = json.dumps(settings.model_dump(mode="json"))
    process = subprocess.Popen(
        [sys.executable, "-c", code, values, *words], cwd=ROOT, env=environment, text=True, **more
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def starts(store, ids) -> list[float]:
    """When each of these jobs was first started."""
    return [next(e.at for e in store.events_after(i) if e.type == "started") for i in ids]


@pytest.mark.parametrize("name", failpoints.API)
def test_an_api_that_dies_after_its_commit_orphans_nothing(database_url, tmp_path, name):
    settings = quick_settings(tmp_path, database_url)
    body = {"kind": "inspect", "model": "file:models/x"}
    for number in range(JOBS):
        key = {"Idempotency-Key": f"run-{number}"}
        with program(SERVE, settings, failpoint=name, stdout=subprocess.PIPE) as process:
            port = int(process.stdout.readline())
            with pytest.raises(httpx.TransportError):
                httpx.post(f"http://127.0.0.1:{port}/v1/jobs", json=body, headers=key)
            process.wait(120)
    with program(SERVE, settings, stdout=subprocess.PIPE) as process, fleet(settings, 1, steps=FAKE_STEPS) as workers:
        port = int(process.stdout.readline())
        moment = time.time()
        accepted = {job.id for job in workers.store.page(limit=1000)}
        assert len(accepted) == JOBS
        for number in range(JOBS):
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/jobs", json=body, headers={"Idempotency-Key": f"run-{number}"}
            )
            assert answer.json()["id"] in accepted, "the repeat of a request made a second job"
        wait_for(lambda: workers.left == 0, 120, "accepted jobs were orphaned")
        assert max(starts(workers.store, accepted)) - moment <= within(5.0)


@pytest.mark.parametrize("name", failpoints.WORKER)
def test_a_worker_that_dies_there_orphans_nothing(database_url, tmp_path, name):
    settings = quick_settings(tmp_path, database_url)
    with fleet(settings, 0, steps=FAKE_STEPS, slots=1) as workers:
        ids = [workers.store.create(request_for("answer")).job.id for _ in range(JOBS)]
        for _ in range(JOBS):
            process = workers.start(failpoint=name)
            process.wait(120)
            workers.kill(process)
        moment = time.time()
        workers.start()
        wait_for(lambda: workers.left == 0, 120, "jobs were orphaned")
        for job_id in ids:
            assert faults_of_history(workers.store, job_id) == []
        running = [e.at for i in ids for e in workers.store.events_after(i) if e.type == "started" and e.at > moment]
        assert not running or min(running) - moment < settings.lease_seconds + within(5)


@pytest.mark.parametrize("name", failpoints.RELAY)
def test_a_relay_that_dies_before_or_after_publishing_loses_no_job(postgresql, tmp_path, name):
    with redis_server() as broker:
        assert broker is not None
        settings = quick_settings(
            tmp_path, postgresql.url(), broker_url=broker.url, relay_seconds=0.1, heal_seconds=1.0
        )
        store = open_store(settings.resolved_database_url)
        ids = [store.create(request_for("answer")).job.id for _ in range(3)]
        with program(RELAY, settings, FAKE_STEPS, failpoint=name) as process:
            process.wait(120)
        moment = time.time()
        with program(RELAY, settings, FAKE_STEPS):
            wait_for(lambda: all(store.get(i).state == "succeeded" for i in ids), 120, "jobs were orphaned")
        took = max(starts(store, ids)) - moment
        print(f"started {took:.1f} s after the program, Celery's own start included")
        assert took <= within(5.0)
        for job_id in ids:
            assert faults_of_history(store, job_id) == []
        store.close()


class Receiver(HTTPServer):
    """Keeps the ids of what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(self.headers["webhook-id"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_webhook_sent_by_a_worker_that_dies_is_sent_again_under_the_same_id(tmp_path, monkeypatch):
    monkeypatch.setattr("bitwright.jobs.deliveries.HOLD_SECONDS", 1.0)
    receiver = Receiver()
    address = f"127.0.0.1:{receiver.server_port}"
    settings = quick_settings(tmp_path, None, webhook_internal=(address,), webhook_poll_seconds=0.1)
    with fleet(settings, 0, steps=FAKE_STEPS) as workers:
        workers.store.create(request_for("answer"), callback=f"http://{address}/hook")
        process = workers.start(failpoint=failpoints.SENT_BEFORE_SETTLED)
        process.wait(120)
        workers.kill(process)
        (found,) = workers.store.deliveries("default")
        assert (found.state, receiver.seen) == ("pending", [found.id])
        workers.store.resend_delivery(found.id, "default")
        workers.start()
        wait_for(lambda: workers.store.get_delivery(found.id, "default").state == "delivered", 120, "not delivered")
    assert receiver.seen == [found.id, found.id]
    receiver.shutdown()
    receiver.server_close()
