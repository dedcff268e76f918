"""The typed client against a real server: same nouns, same errors, safe repeats."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bitwright.client import Client
from bitwright.core import errors
from bitwright.core.plan import Plan
from bitwright.core.problem_file import problem_from_json, save_problem
from bitwright.core.requests import InspectRequest
from bitwright.core.table import SensitivityTable
from service.openapi_examples import EXAMPLES
from tests.api.running import Running
from tests.dashboard.sample_state import llama_units, plan_of, store_table, table_of

PROBLEM = problem_from_json(EXAMPLES["solve"]["problem"])


@pytest.fixture
def client(api: Running) -> Iterator[Client]:
    with Client(api.url) as found:
        yield found


@pytest.fixture(scope="module")
def table(api: Running) -> SensitivityTable:
    found = table_of("hf:org/client", llama_units(2), 9)
    store_table(api.blobs, found)
    return found


@pytest.fixture(scope="module")
def plan(api: Running, table: SensitivityTable) -> Plan:
    found = plan_of(table, 4.0)
    api.blobs.put_as("plans", found.digest, found)
    return found


def test_submit_wait_and_result_with_progress(api: Running, client: Client) -> None:
    job = client.submit(InspectRequest(model="hf:org/progress"))
    claim = api.claim(job["id"])
    told: list[tuple[str, float, str]] = []

    def tell(stage: str, fraction: float, message: str) -> None:
        """Each thing that is told makes the next one happen."""
        if not told:
            api.store.progress(job["id"], claim.attempt, "score", 0.5, "half way")
        elif stage == "score":
            api.store.succeed(job["id"], claim.attempt, {"units": 3})
        told.append((stage, fraction, message))

    ended = client.wait(job, progress=tell)
    assert ended["state"] == "succeeded"
    assert client.result(job) == {"units": 3}
    assert ("score", 0.5, "half way") in told
    assert told[-1][1] == 1.0
    assert [event["type"] for event in client.events(job)] == ["queued", "started", "progress", "succeeded"]


def test_same_key_gives_the_same_job_and_another_body_is_an_error(client: Client) -> None:
    key = f'a "quoted" key {time.time_ns()}'
    body = {"kind": "inspect", "model": "hf:org/name"}
    assert client.submit(body, key)["id"] == client.submit(body, key)["id"]
    with pytest.raises(errors.IdempotencyMismatch):
        client.submit({**body, "seed": 1}, key)


def test_problems_come_back_as_their_own_exceptions(api: Running, client: Client) -> None:
    with pytest.raises(errors.InvalidBudget) as budget:
        client.submit({"kind": "plan", "model": "hf:a/b", "budget": "much"})
    assert budget.value.expected
    with pytest.raises(errors.UnknownName, match="did you mean"):
        client.submit({"kind": "plan", "model": "hf:a/b", "budget": "4bpw", "metric": "fischer"})
    with pytest.raises(errors.NotFound):
        client.plan("sha256:" + "0" * 64)
    with pytest.raises(errors.NotFound):
        client.job("a/../b")
    job = client.submit({"kind": "inspect", "model": "hf:org/name"})
    with pytest.raises(errors.ResultNotReady):
        client.result(job)
    claim = api.claim(job["id"])
    api.store.fail(job["id"], claim.attempt, errors.NotFinite("layer 3 gave NaN"))
    with pytest.raises(errors.NotFinite, match="layer 3"):
        client.result(job)


def test_waiting_has_an_end_when_asked(client: Client) -> None:
    job = client.submit({"kind": "inspect", "model": "hf:org/name"})
    with pytest.raises(errors.Temporary, match="not ended"):
        client.wait(job, timeout=0.3)
    assert client.cancel(job)["state"] == "cancelled"
    assert client.wait(job)["state"] == "cancelled"


def test_all_jobs_are_walked(client: Client) -> None:
    for _ in range(6):
        client.submit({"kind": "inspect", "model": "hf:org/walked"})
    ids = [job["id"] for job in client.jobs(page_size=5)]
    assert len(ids) == len(set(ids)) > 5
    assert all(job["state"] == "queued" for job in client.jobs(state="queued"))


def test_solve_frontier_and_verify(client: Client, table: SensitivityTable, plan: Plan, tmp_path: Path) -> None:
    solution = client.solve(PROBLEM, solver="hull")
    assert client.verify(solution, PROBLEM).ok
    save_problem(PROBLEM, tmp_path / "problem.npz")
    solution.save(tmp_path / "solution.json")
    plan.save(tmp_path / "plan.json")
    table.save(tmp_path / "table.npz")
    assert client.verify(tmp_path / "solution.json", tmp_path / "problem.npz").ok
    assert client.verify(tmp_path / "plan.json").ok
    assert client.frontier(PROBLEM, limit="bytes", points=3)["limit"] == "bytes"
    assert client.frontier(tmp_path / "table.npz")["breakpoints"] == client.frontier(table)["breakpoints"]
    infeasible = client.solve(PROBLEM.with_limit("bytes", 1))
    assert not infeasible.feasible


def test_documents_and_catalogs(client: Client, table: SensitivityTable, plan: Plan, tmp_path: Path) -> None:
    assert client.plan(plan.digest) == plan
    assert client.sensitivity(table.digest).digest == table.digest
    assert client.export(plan.digest, "mlx") == client.export(plan, "mlx")
    assert {entry["name"] for entry in client.catalog("solvers")} >= {"hull", "milp"}
    assert client.export_targets()
    (tmp_path / "text.txt").write_text("calibration")
    assert (
        client.upload_text(tmp_path / "text.txt")
        == client.upload_text("calibration")
        == client.upload_text(b"calibration")
    )
    assert client.validate({"kind": "inspect", "model": "hf:a/b"})["seed"] == 0


def test_a_server_that_is_away_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.client_calls.RETRY_SECONDS", (0.01,))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(errors.Temporary, match="does not answer"):
        client.job("x")
    with pytest.raises(errors.InvalidSetting):
        Client("localhost:8321")


def test_broken_connections_and_503_are_repeated_with_one_key(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.client_calls.RETRY_SECONDS", (0.01, 0.01, 0.01))

    class Flaky(httpx.BaseTransport):
        """A real connection that breaks after the request was served, then is busy, then works."""

        def __init__(self) -> None:
            self.real, self.seen = httpx.HTTPTransport(), list[str]()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self.seen.append(request.headers.get("idempotency-key", ""))
            answer = self.real.handle_request(request)
            if len(self.seen) < 3:
                answer.read()
                answer.close()
            if len(self.seen) == 1:
                raise httpx.ReadError("connection reset")
            if len(self.seen) == 2:
                return httpx.Response(
                    503, headers={"Retry-After": "0"}, json={"type": "https://bitwright.dev/problems/temporary"}
                )
            return answer

        def close(self) -> None:
            self.real.close()

    before = sum(api.store.statistics().states.values())
    transport = Flaky()
    with Client(api.url, transport=transport) as client:
        client.submit({"kind": "inspect", "model": "hf:org/name"})
    assert len(transport.seen) == 3
    assert len(set(transport.seen)) == 1
    assert sum(api.store.statistics().states.values()) == before + 1


def test_something_that_is_no_bitwright_server_is_said_so() -> None:
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>hello</html>"))
    with (
        Client("http://example.org", transport=page) as client,
        pytest.raises(errors.BitwrightError, match="JSON object"),
    ):
        client.job("x")
