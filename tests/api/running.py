"""A real server on a free port, with a state folder of its own; and workers played by hand through the job store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bitwright.jobs.blobs import BlobStore
from bitwright.jobs.store import JobStore
from bitwright.jobs.values import Job
from bitwright.settings import Settings
from service.server import Server


@dataclass(frozen=True)
class Running:
    """url: where it answers; http: a client of it; store: the same database that the server uses."""

    url: str
    http: httpx.Client
    settings: Settings
    server: Server

    @property
    def state(self) -> Any:
        return self.server.config.app.state.bitwright  # type: ignore[union-attr]

    @property
    def store(self) -> JobStore:
        store: JobStore = self.state.store
        return store

    @property
    def blobs(self) -> BlobStore:
        return BlobStore(self.settings.blob_dir)

    def submit(self, **members: Any) -> dict[str, Any]:
        body = {"kind": "inspect", "model": "hf:org/name", **members}
        answer = self.http.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def claim(self, job_id: str) -> Job:
        """Take this job as a worker would, ending whatever waited before it."""
        while True:
            job = self.store.claim("test-worker", lease_seconds=600)
            assert job is not None
            if job.id == job_id:
                return job
            self.store.succeed(job.id, job.attempt, {})


@contextmanager
def running_server(folder: Path, **options: Any) -> Iterator[Running]:
    settings = Settings(state_dir=folder, port=options.pop("port", 0), **options)
    up = threading.Event()
    server = Server(settings, host="127.0.0.1", port=settings.port, ready=lambda host, port: up.set())
    thread = threading.Thread(target=server.run_here, daemon=True)
    thread.start()
    assert up.wait(60), "the server did not start"
    host, port = server.address
    url = f"http://{host}:{port}"
    try:
        with httpx.Client(base_url=url, timeout=60) as http:
            yield Running(url, http, settings, server)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


def assert_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The answer is the problem document of that type; gives it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"https://bitwright.dev/problems/{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == f"urn:bitwright:request:{answer.headers['x-request-id']}"
    return problem
