"""Jobs over HTTP: creating, idempotency, waiting, entity tags, cancelling, results."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from bitwright.core.errors import NotFinite
from tests.api.running import Running, assert_problem, running_server

BODY = {"kind": "plan", "model": "hf:org/name", "budget": "3.5bpw"}


def test_creating_a_job_is_202_with_its_address(api: Running) -> None:
    answer = api.http.post("/v1/jobs", json=BODY)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert job["state"] == "queued"
    assert not job["done"]
    assert api.http.get(answer.headers["location"]).json() == job


def test_validate_only_creates_nothing(api: Running) -> None:
    before = api.store.statistics().states
    answer = api.http.post("/v1/jobs?validate_only=true", json=BODY)
    assert answer.status_code == 200
    assert answer.json()["valid"]
    assert answer.json()["request"]["recipe"] == "auto"
    assert_problem(api.http.post("/v1/jobs?validate_only=true", json={"kind": "plan"}), 422, "invalid-input")
    assert api.store.statistics().states == before


@pytest.mark.parametrize("key", ['"quoted-{}"', "bare-{}"])
def test_same_key_and_body_give_the_same_job(api: Running, key: str) -> None:
    headers = {"Idempotency-Key": key.format(time.time_ns())}
    first, second = (api.http.post("/v1/jobs", json=BODY, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


def test_quoted_and_bare_keys_are_one_key(api: Running) -> None:
    text = f"k-{time.time_ns()}"
    ids = {
        api.http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": k}).json()["id"] for k in (text, f'"{text}"')
    }
    assert len(ids) == 1


@pytest.mark.parametrize(
    "other",
    [{"budget": "4bpw"}, {"queue": "gpu"}, {"priority": 1}, {"seed": 7}, {"callback": "https://hooks.example.com/x"},
     {"deadline": "2099-01-01T00:00:00Z"}],
)  # fmt: skip
def test_same_key_with_another_body_is_422(api: Running, other: dict[str, object]) -> None:
    """Every member counts; once `queue` did not."""
    headers = {"Idempotency-Key": f"m-{time.time_ns()}"}
    api.http.post("/v1/jobs", json=BODY, headers=headers)
    assert_problem(api.http.post("/v1/jobs", json={**BODY, **other}, headers=headers), 422, "idempotency-mismatch")


@pytest.mark.parametrize("key", ["", '""', "x" * 300, "käse"])
def test_unusable_keys_are_422(api: Running, key: str) -> None:
    answer = api.http.post("/v1/jobs", json=BODY, headers=[("Idempotency-Key", key.encode())])  # type: ignore[list-item]
    assert_problem(answer, 422, "invalid-input")


def test_200_parallel_posts_with_one_key_make_one_job(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        headers = {"Idempotency-Key": "the-one"}
        limits = httpx.Limits(max_connections=200)
        with ThreadPoolExecutor(200) as pool, httpx.Client(base_url=server.url, timeout=120, limits=limits) as http:
            answers = list(pool.map(lambda _: http.post("/v1/jobs", json=BODY, headers=headers), range(200)))
            assert {answer.status_code for answer in answers} == {202}
            assert len({answer.json()["id"] for answer in answers}) == 1
            assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
            assert_problem(
                http.post("/v1/jobs", json={**BODY, "seed": 1}, headers=headers), 422, "idempotency-mismatch"
            )
        assert sum(server.store.statistics().states.values()) == 1


@pytest.mark.parametrize(
    ("members", "slug"),
    [
        ({"model": "/etc/passwd"}, "invalid-reference"),
        ({"model": "file:root/../etc"}, "invalid-reference"),
        ({"model": "https://example.org/model"}, "invalid-reference"),
        ({"calibration": "/etc/passwd"}, "invalid-calibration"),
        ({"calibration": "sha256:" + "0" * 64}, "invalid-calibration"),
        ({"calibration": "sha256:../../etc"}, "invalid-calibration"),
        ({"recipe": "/tmp/own.toml"}, "invalid-reference"),
        ({"recipe": "no-such"}, "unknown-name"),
        ({"metric": "fischer"}, "unknown-name"),
        ({"solver": "no-such"}, "unknown-name"),
        ({"engine": "no-such"}, "unknown-name"),
        ({"formats": ["int9-g64"]}, "unknown-name"),
        ({"deadline": "2001-01-01T00:00:00Z"}, "invalid-input"),
        ({"deadline": "tomorrow"}, "invalid-input"),
        ({"priority": 1000}, "invalid-input"),
        ({"formats": []}, "invalid-input"),
    ],
)
def test_what_no_worker_could_do_is_refused_at_once(api: Running, members: dict[str, object], slug: str) -> None:
    assert_problem(api.http.post("/v1/jobs", json={**BODY, **members}), 422, slug)


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        ({"kind": "execute", "plan": {}}, "invalid-plan"),
        ({"kind": "execute", "plan": {"bitwright_plan": 1}}, "invalid-plan"),
        ({"kind": "evaluate", "plan": {"units": []}}, "invalid-plan"),
    ],
)
def test_plans_that_are_none_are_refused_at_once(api: Running, body: dict[str, object], slug: str) -> None:
    assert_problem(api.http.post("/v1/jobs", json={"model": "hf:a/b", **body}), 422, slug)


def test_near_names_are_offered(api: Running) -> None:
    problem = api.http.post("/v1/jobs", json={**BODY, "metric": "fischer"}).json()
    assert "fisher" in problem["hint"]


def test_deadline_and_priority_are_kept(api: Running) -> None:
    deadline = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    job = api.submit(deadline=deadline, priority=7)
    assert job["priority"] == 7
    assert datetime.fromisoformat(job["deadline"]) - datetime.fromisoformat(deadline) < timedelta(seconds=1)


def test_stored_text_can_be_named(api: Running) -> None:
    stored = api.http.post("/v1/texts", content=b"some text\n", headers={"Content-Type": "text/plain; charset=utf-8"})
    assert stored.status_code == 201
    assert api.http.post("/v1/jobs", json={**BODY, "calibration": stored.json()["digest"]}).status_code == 202


@pytest.mark.parametrize("body", [b"", b"   \n", b"\xff\xfe", b"a\x00b"])
def test_texts_that_are_none_are_refused(api: Running, body: bytes) -> None:
    assert_problem(
        api.http.post("/v1/texts", content=body, headers={"Content-Type": "text/plain"}), 422, "invalid-calibration"
    )


def test_entity_tag_is_the_version_and_304_has_no_body(api: Running) -> None:
    job = api.submit()
    first = api.http.get(f"/v1/jobs/{job['id']}")
    assert first.headers["etag"] == f'"{job["version"]}"'
    again = api.http.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    api.store.cancel(job["id"])
    assert api.http.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def test_wait_returns_on_a_change_and_keeps_304_without_one(api: Running) -> None:
    job = api.submit()
    path, tag = f"/v1/jobs/{job['id']}", {"If-None-Match": f'"{job["version"]}"'}
    assert api.http.get(f"{path}?wait=0.2", headers=tag).status_code == 304
    timer = threading.Timer(0.3, lambda: api.store.cancel(job["id"]))
    timer.start()
    answer = api.http.get(f"{path}?wait=30", headers=tag)
    timer.join()
    assert answer.json()["state"] == "cancelled"


def test_prefer_wait_gives_200_when_the_job_ends_in_time(api: Running) -> None:
    def work() -> None:
        while (job := api.store.claim("quick", lease_seconds=60)) is None or job.request["model"] != "hf:org/quick":
            if job is not None:
                api.store.succeed(job.id, job.attempt, {})
            time.sleep(0.01)
        api.store.succeed(job.id, job.attempt, {"answer": 42})

    thread = threading.Thread(target=work)
    thread.start()
    answer = api.http.post(
        "/v1/jobs", json={"kind": "inspect", "model": "hf:org/quick"}, headers={"Prefer": "respond-async, wait=25"}
    )
    thread.join()
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=25"
    assert answer.json()["result"] == {"answer": 42}


def test_prefer_wait_falls_back_to_202_and_is_cut_to_the_longest(api: Running) -> None:
    answer = api.http.post("/v1/jobs", json=BODY, headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    from service.preferences import preferred_wait

    assert preferred_wait(["wait=99999"], 60) == 60
    assert preferred_wait(["handling=strict", 'wait="5"; foo'], 60) == 5
    assert preferred_wait(["wait=x"], 60) is None


def test_cancel_of_a_queued_job_is_200_and_idempotent(api: Running) -> None:
    job = api.submit()
    for _ in range(2):
        answer = api.http.post(f"/v1/jobs/{job['id']}:cancel")
        assert answer.status_code == 200
        assert answer.json()["state"] == "cancelled"


def test_cancel_of_a_running_job_is_202_until_confirmed(api: Running) -> None:
    job = api.submit()
    claim = api.claim(job["id"])
    answer = api.http.post(f"/v1/jobs/{job['id']}:cancel")
    assert answer.status_code == 202
    assert answer.json()["cancelling"]
    api.store.confirm_cancel(job["id"], claim.attempt)
    assert api.http.post(f"/v1/jobs/{job['id']}:cancel").json()["state"] == "cancelled"
    assert_problem(api.http.get(f"/v1/jobs/{job['id']}/result"), 409, "cancelled")


def test_cancel_with_an_old_version_is_412(api: Running) -> None:
    job = api.submit()
    assert_problem(
        api.http.post(f"/v1/jobs/{job['id']}:cancel", headers={"If-Match": '"77"'}), 412, "precondition-failed"
    )


def test_unknown_jobs_are_404_everywhere(api: Running) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/result"), ("POST", ":cancel")):
        assert_problem(api.http.request(method, f"/v1/jobs/no-such-job{path}"), 404, "not-found")


def test_result_is_404_with_retry_after_until_the_job_ends(api: Running) -> None:
    job = api.submit()
    path = f"/v1/jobs/{job['id']}/result"
    answer = api.http.get(path)
    assert_problem(answer, 404, "result-not-ready")
    assert int(answer.headers["retry-after"]) >= 1
    claim = api.claim(job["id"])
    api.store.succeed(job["id"], claim.attempt, {"rows": [1, 2]})
    assert api.http.get(path).json() == {"rows": [1, 2]}


def test_result_of_a_failed_job_is_409_with_the_reason(api: Running) -> None:
    job = api.submit()
    claim = api.claim(job["id"])
    api.store.fail(job["id"], claim.attempt, NotFinite("layer 3 gave NaN", hint="look at layer 3"))
    problem = assert_problem(api.http.get(f"/v1/jobs/{job['id']}/result"), 409, "conflict")
    assert problem["error"]["type"].endswith("/not-finite")
    assert "layer 3" in problem["detail"]


def test_links_of_a_finished_plan_lead_to_plan_and_table(api: Running) -> None:
    job = api.submit()
    claim = api.claim(job["id"])
    plan, table = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    api.store.succeed(job["id"], claim.attempt, {"plan_digest": plan, "table_digest": table})
    links = api.http.get(f"/v1/jobs/{job['id']}").json()["links"]
    assert links["plan"] == f"/v1/plans/{plan}"
    assert links["sensitivities"] == f"/v1/sensitivities/{table}"
    assert "cancel" not in links
