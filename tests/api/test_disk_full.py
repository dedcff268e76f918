"""A disk without room over HTTP: 507 and when to come again, nothing half kept, and the same request works later.

A disk that cannot be written to is no mistake of whoever asks."""

from __future__ import annotations

import io
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from sqlalchemy import event

from bitwright.client import Client
from bitwright.core.errors import DiskFull
from tests.api.running import Running, assert_problem, running_server

TEXT = {"Content-Type": "text/plain"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Running]:
    with running_server(tmp_path) as server:
        yield server


@contextmanager
def pragma(api: Running, words: str) -> Iterator[None]:
    """It holds for each connection alone, so all are made anew with it."""
    engine = api.store.database.engine

    def tell(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA {words}")

    event.listen(engine, "connect", tell)
    engine.dispose()
    try:
        yield
    finally:
        event.remove(engine, "connect", tell)
        engine.dispose()


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process, the server's among them, may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refused(answer: httpx.Response) -> None:
    assert_problem(answer, 507, "disk-full")
    assert int(answer.headers["retry-after"]) >= 30


def test_a_job_without_room_is_refused_and_accepted_when_there_is_some(api):
    def post(number: int) -> httpx.Response:
        body = {"kind": "inspect", "model": "hf:org/name", "callback": "https://example.com/" + "y" * 2000}
        return api.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": f'"{number}"'})

    with api.store.database.read() as tx:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    with pragma(api, f"max_page_count={pages}"):
        room = next(number for number in range(100) if post(number).status_code != 202)  # the pages in use fill up
        for _ in range(3):
            refused(post(room))
        refused(api.http.post("/v1/batches", json={"models": ["hf:a/b"] * 9, "budgets": ["3bpw", "4bpw"]}))
        assert len(api.http.get("/v1/jobs?page_size=200").json()["jobs"]) == room, "what is there can be read"
    answer = post(room)
    assert (answer.status_code, answer.headers.get("idempotency-replayed")) == (202, None)
    assert len(api.http.get("/v1/jobs?page_size=200").json()["jobs"]) == room + 1


def test_uploads_without_room_are_refused_and_leave_nothing(api):
    text, problem = "word " * 60_000, io.BytesIO()
    np.savez(problem, loss=np.random.default_rng(0).random((9000, 4)), size=np.ones(9000, np.int64),
             rate=np.arange(1, 5), rate_den=1, limit_bits=27_000)  # fmt: skip
    sent = {"content": problem.getvalue(), "headers": {"Content-Type": "application/octet-stream"}}
    assert api.http.post("/v1/solve", **sent).status_code == 200
    with full_disk(200_000):
        refused(api.http.post("/v1/texts", content=text, headers=TEXT))
        refused(api.http.post("/v1/problems", **sent))
        assert api.http.get("/v1/texts").json() == {"texts": []}
        with pytest.raises(DiskFull, match="File too large"), Client(api.url) as client:
            client.upload_text(text)
    assert not [path for path in api.settings.blob_dir.rglob("*") if path.is_file()]
    assert api.http.post("/v1/texts", content=text, headers=TEXT).status_code == 201
    assert api.http.post("/v1/problems", **sent).status_code == 201


def test_a_state_folder_that_cannot_be_written_to_is_no_mistake_of_the_request(api):
    """Regression: 422 with the path of the folder, as if another request could help."""
    (api.settings.state_dir / "blobs").write_text("in the way")
    (api.settings.state_dir / "keys.json").write_text("no keys")
    assert_problem(api.http.get("/v1/jobs"), 500, "internal")
    (api.settings.state_dir / "keys.json").unlink()
    answers = [api.http.post("/v1/texts", content="words", headers=TEXT)]
    assert_problem(answers[0], 500, "out-of-resources")
    with pragma(api, "query_only=ON"):
        answers.append(api.http.post("/v1/jobs", json={"kind": "inspect", "model": "hf:org/name"}))
        assert_problem(answers[1], 500, "internal")
        assert api.http.get("/v1/jobs").json()["jobs"] == []
    assert not [answer for answer in answers if str(api.settings.state_dir) in answer.text]
