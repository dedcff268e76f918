"""Walking through jobs page by page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.running import Running, assert_problem, running_server


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("pages"), page_size=7) as server:
        for index in range(25):
            job = server.store.create({"kind": "inspect" if index % 5 else "plan", "model": f"hf:org/m{index}"}).job
            if index % 4 == 0:
                server.store.cancel(job.id)
        yield server


def walk(server: Running, **query: object) -> list[str]:
    ids: list[str] = []
    token = ""
    while True:
        page = server.http.get("/v1/jobs", params={**query, "page_token": token}).json()  # type: ignore[dict-item]
        ids += [job["id"] for job in page["jobs"]]
        token = page["next_page_token"]
        if not token:
            return ids


@pytest.mark.parametrize("size", [0, 1, 3, 25, 26, 10**30])
def test_walk_sees_every_job_once_newest_first(full: Running, size: int) -> None:
    ids = walk(full, page_size=size)
    assert len(ids) == len(set(ids)) == 25
    assert ids == sorted(ids, reverse=True)


def test_default_page_size_is_the_setting(full: Running) -> None:
    assert len(full.http.get("/v1/jobs").json()["jobs"]) == 7


def test_filters_by_state_and_kind(full: Running) -> None:
    cancelled = walk(full, state="cancelled")
    assert len(cancelled) == 7
    assert len(walk(full, kind="plan", page_size=2)) == 5
    assert len(walk(full, state="cancelled,queued", page_size=3)) == 25
    assert_problem(full.http.get("/v1/jobs?state=canceled"), 422, "unknown-name")
    assert_problem(full.http.get("/v1/jobs?kind=x"), 422, "unknown-name")


def test_search_finds_jobs_on_every_page(full: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(walk(full, q="ORG/M1", page_size=3)) == 11
    assert len(walk(full, q="m1 plan", page_size=1)) == len({10, 15})
    assert walk(full, q="nothing-is-called-so") == []
    assert len(walk(full, q="hf:org", kind="plan", state="cancelled")) == 2
    assert walk(full, q="100%_m1") == [], "no character is a wildcard"
    oldest = walk(full)[-1]
    monkeypatch.setattr("service.listing.MAX_SEARCHED", 4)
    assert full.http.get("/v1/jobs", params={"q": oldest}).json()["jobs"] == [], "one page looks at four jobs"
    assert walk(full, q=oldest) == [oldest]
    token = full.http.get("/v1/jobs?q=org").json()["next_page_token"]
    assert_problem(full.http.get("/v1/jobs", params={"page_token": token, "q": "m2"}), 422, "invalid-input")


def test_search_sees_neither_plans_of_requests_nor_jobs_of_others(full: Running) -> None:
    full.store.create({"kind": "evaluate", "model": "hf:org/late", "plan": {"note": "whisper"}}, tenant="default")
    full.store.create({"kind": "inspect", "model": "hf:other/whisper"}, tenant="someone-else")
    assert walk(full, q="whisper") == []


def test_jobs_that_arrive_during_a_walk_do_not_shift_it(full: Running) -> None:
    first = full.http.get("/v1/jobs?page_size=5").json()
    late = full.store.create({"kind": "inspect", "model": "hf:org/late"}).job
    second = full.http.get("/v1/jobs", params={"page_size": 5, "page_token": first["next_page_token"]}).json()
    seen = [job["id"] for job in first["jobs"] + second["jobs"]]
    assert len(set(seen)) == 10
    assert late.id not in seen
    full.store.database  # noqa: B018


def test_tampered_and_foreign_tokens_are_refused(full: Running, tmp_path: Path) -> None:
    token = full.http.get("/v1/jobs?page_size=2").json()["next_page_token"]
    flipped = ("B" if token[0] != "B" else "C") + token[1:]
    for bad in (flipped, token[:-2], "x", "%%%", "é", "A" * 2000, token + "A"):
        assert_problem(full.http.get("/v1/jobs", params={"page_token": bad}), 422, "invalid-input")
    with running_server(tmp_path) as other:
        assert_problem(other.http.get("/v1/jobs", params={"page_token": token}), 422, "invalid-input")


def test_token_of_other_filters_is_refused(full: Running) -> None:
    token = full.http.get("/v1/jobs?page_size=2").json()["next_page_token"]
    problem = assert_problem(
        full.http.get("/v1/jobs", params={"page_token": token, "state": "queued"}), 422, "invalid-input"
    )
    assert "filters" in problem["detail"]


def test_token_tells_nothing(full: Running) -> None:
    import base64

    page = full.http.get("/v1/jobs?page_size=2").json()
    raw = base64.urlsafe_b64decode(page["next_page_token"] + "==")
    assert page["jobs"][-1]["id"].encode() not in raw
    assert b"filters" not in raw


def test_lists_leave_results_and_plans_out(full: Running) -> None:
    job = full.store.create({"kind": "execute", "model": "hf:org/big", "plan": {"units": []}}).job
    shown = next(j for j in full.http.get("/v1/jobs").json()["jobs"] if j["id"] == job.id)
    assert "plan" not in shown["request"]
    assert "result" not in shown
