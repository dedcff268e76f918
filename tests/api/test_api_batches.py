"""Batches, uploads of problem files, work that was done before, and the limits of one tenant."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.api.running import Running, assert_problem, running_server
from tests.chaos.fleet import wait_for

BATCH = {"models": ["hf:org/a", "hf:org/b"], "budgets": ["3bpw", "4bpw"], "job": {"kind": "plan"}}
COMMIT = "hf:org/name@" + "a" * 40


def npz(units: int = 3, padding: int = 0) -> bytes:
    arrays = {
        "loss": np.tile([0.9, 0.2, 0.01], (units, 1)), "size": np.full(units, 64), "rate": np.array([2, 3, 4]),
        "rate_den": np.array(1), "limit_bits": np.array(64 * 3 * units),
    }  # fmt: skip
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue() + b"\0" * padding


def test_a_batch_is_every_model_with_every_budget(api: Running) -> None:
    answer = api.http.post("/v1/batches", json=BATCH)
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert (batch["total"], batch["state"], batch["done"]) == (4, "queued", False)
    assert answer.headers["location"] == batch["links"]["self"]
    jobs = api.http.get(batch["links"]["jobs"]).json()["jobs"]
    pairs = {(job["request"]["model"], job["request"]["budget"]) for job in jobs}
    assert pairs == {("hf:org/a", "3bpw"), ("hf:org/a", "4bpw"), ("hf:org/b", "3bpw"), ("hf:org/b", "4bpw")}
    assert {job["batch"] for job in jobs} == {batch["id"]}
    ended = api.http.post(batch["links"]["cancel"]).json()
    assert (ended["state"], ended["counts"]["cancelled"], ended["fraction"]) == ("cancelled", 4, 1.0)
    assert api.http.get(batch["links"]["self"]).json() == ended


def test_a_batch_is_accepted_whole_or_refused_with_the_job_that_is_wrong(api: Running) -> None:
    before = len(api.http.get("/v1/jobs?page_size=1000").json()["jobs"])
    problem = assert_problem(
        api.http.post("/v1/batches", json={**BATCH, "budgets": ["3bpw", "3 parsecs"]}), 422, "invalid-budget"
    )
    assert problem["job"] == {"model": "hf:org/a", "budget": "3 parsecs"}
    assert len(api.http.get("/v1/jobs?page_size=1000").json()["jobs"]) == before
    checked = api.http.post("/v1/batches?validate_only=true", json=BATCH).json()
    assert (checked["valid"], len(checked["jobs"])) == (True, 4)


def test_the_same_key_gives_the_same_batch_and_another_body_is_refused(api: Running) -> None:
    headers = {"Idempotency-Key": "nightly-7"}
    first, again = (api.http.post("/v1/batches", json=BATCH, headers=headers).json() for _ in range(2))
    assert first["id"] == again["id"]
    assert len(api.http.get(first["links"]["jobs"]).json()["jobs"]) == 4
    other = api.http.post("/v1/batches", json={**BATCH, "budgets": ["5bpw"]}, headers=headers)
    assert other.status_code == 422
    assert_problem(api.http.get("/v1/batches/none"), 404, "not-found")


def test_a_problem_file_is_stored_once_and_solved_at_many_limits(api: Running) -> None:
    body = npz()
    stored = api.http.post("/v1/problems", content=body, headers={"Content-Type": "application/octet-stream"})
    assert stored.status_code == 201, stored.text
    assert (stored.json()["units"], stored.json()["formats"]) == (3, 3)
    digest = stored.json()["digest"]
    losses = [
        api.http.post("/v1/solve", json={"problem": digest, "limits": {"bits": bits}}).json()["loss"]
        for bits in (64 * 6, 64 * 9, 64 * 12)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] == pytest.approx(0.6)
    unknown = api.http.post("/v1/solve", json={"problem": "sha256:" + "0" * 64})
    assert_problem(unknown, 422, "invalid-problem")
    junk = api.http.post("/v1/problems", content=b"junk", headers={"Content-Type": "application/octet-stream"})
    assert junk.status_code == 422


def test_work_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "models" / "m").mkdir(parents=True)
    file = tmp_path / "models" / "m" / "config.json"
    file.write_text("{}")
    with running_server(tmp_path / "state", model_roots={"models": tmp_path / "models"}) as api:
        for model in ("file:models/m", COMMIT):
            body = {"kind": "inspect", "model": model}
            first = api.http.post("/v1/jobs", json=body)
            assert (first.status_code, first.headers["bitwright-cache"]) == (202, "miss")
            job = api.claim(first.json()["id"])
            api.store.succeed(job.id, job.attempt, {"units": 7})
            again = api.http.post("/v1/jobs", json=body)
            assert (again.status_code, again.headers["bitwright-cache"]) == (200, "hit")
            assert (again.json()["state"], again.json()["result"]) == ("succeeded", {"units": 7})
            assert again.json()["id"] != job.id
            anew = api.http.post("/v1/jobs", json=body, headers={"Cache-Control": "no-cache"})
            assert anew.headers["bitwright-cache"] == "miss"
        file.write_text("{ }")
        changed = api.http.post("/v1/jobs", json={"kind": "inspect", "model": "file:models/m"})
        assert changed.headers["bitwright-cache"] == "miss", "the model has changed"
        branch = {"kind": "inspect", "model": "hf:org/name@main"}
        for _ in range(2):
            answer = api.http.post("/v1/jobs", json=branch)
            assert answer.headers["bitwright-cache"] == "miss", "a branch may move"
            job = api.claim(answer.json()["id"])
            api.store.succeed(job.id, job.attempt, {})


def test_limits_of_a_tenant_hold_at_the_limit_and_one_more(tmp_path: Path) -> None:
    limits = {
        "tenant_queued_jobs": 3, "tenant_streams": 2, "tenant_waits": 2, "batch_jobs": 3, "wait_seconds": 60,
        "max_text_bytes": 64, "max_problem_bytes": 4096,
    }  # fmt: skip
    with running_server(tmp_path, **limits) as api:
        ids = [api.submit()["id"] for _ in range(3)]
        full = api.http.post("/v1/jobs", json={"kind": "inspect", "model": "hf:org/name"})
        assert_problem(full, 429, "too-many-requests")
        assert int(full.headers["retry-after"]) > 0
        api.http.post(f"/v1/jobs/{ids[0]}:cancel")
        assert api.submit()["state"] == "queued"
        _streams(api, ids[1])
        _waits(api, ids[1])
        assert_problem(api.http.post("/v1/batches", json=BATCH), 422, "invalid-input")
        for cap, path, media in ((64, "texts", "text/plain"), (4096, "problems", "application/octet-stream")):
            send = {"headers": {"Content-Type": media}}
            assert api.http.post(f"/v1/{path}", content=b"x" * cap, **send).status_code != 413
            assert_problem(api.http.post(f"/v1/{path}", content=b"x" * (cap + 1), **send), 413, "too-large")


def test_limits_of_a_body_hold_at_the_limit_and_one_more(api: Running) -> None:
    """JSON of 32 levels is read, of 33 refused; so are one unit and one name more than the limits."""

    def post(path: str, body: bytes) -> httpx.Response:
        return api.http.post(path, content=body, headers={"Content-Type": "application/json"})

    for depth, words in ((31, "object"), (33, "nested too deeply")):
        answer = post("/v1/jobs", b"[" * depth + b"]" * depth)
        assert words in answer.json()["detail"]
    units = api.settings.max_solve_units
    for count, status in ((units, 200), (units + 1, 413)):
        problem = {"loss": [[1.0, 0.5]] * count, "cost_bytes": [[1, 2]] * count, "limit_bytes": 2 * count}
        assert api.http.post("/v1/solve", json={"problem": problem}).status_code == status
    for length, status in ((96, 202), (97, 422)):
        model = "hf:a/" + "b" * (length - 2)
        assert api.http.post("/v1/jobs", json={"kind": "inspect", "model": model}).status_code == status
    for key, status in (("k" * 255, 202), ("k" * 256, 422)):
        body = {"kind": "inspect", "model": "hf:a/b"}
        assert api.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": key}).status_code == status
    for priority, status in ((100, 202), (101, 422), (-100, 202), (-101, 422)):
        body = {"kind": "inspect", "model": "hf:a/b", "priority": priority}
        assert api.http.post("/v1/jobs", json=body).status_code == status


def _streams(api: Running, job_id: str) -> None:
    path = f"/v1/jobs/{job_id}/events"
    with api.http.stream("GET", path) as one, api.http.stream("GET", path) as two:
        assert (one.status_code, two.status_code) == (200, 200)
        assert_problem(api.http.get(path), 429, "too-many-requests")
    for _ in range(200):
        with api.http.stream("GET", path) as again:
            if again.status_code == 200:
                return
    raise AssertionError("closed streams were never given back")


def _waits(api: Running, job_id: str) -> None:
    def wait(_: int) -> int:
        with httpx.Client(base_url=api.url, timeout=120) as http:
            return http.get(f"/v1/jobs/{job_id}?wait=60").status_code

    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(wait, number) for number in range(2)]
        wait_for(lambda: api.state.quotas.open_now("waiting requests", "default") == 2, 60, "nobody waits")
        assert_problem(api.http.get(f"/v1/jobs/{job_id}?wait=60"), 429, "too-many-requests")
        api.http.post(f"/v1/jobs/{job_id}:cancel")
        assert [one.result() for one in held] == [200, 200]
