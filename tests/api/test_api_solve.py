"""Synchronous solving: right answers, limits, processes that die and are replaced."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from bitwright.core.certificate import verify
from bitwright.core.problem import Problem
from bitwright.core.problem_file import problem_from_json, problem_to_arrays, problem_to_json
from bitwright.core.solution import solution_from_json
from service.openapi_examples import EXAMPLES
from tests.api.running import Running, assert_problem, running_server
from tests.strategies import problems

PROBLEM = EXAMPLES["solve"]["problem"]


def checked(problem: Problem, answer: dict[str, Any]) -> None:
    """The independent checker agrees with what the server said."""
    solution = solution_from_json(answer)
    verdict = verify(problem, solution.choice, solution.certificate)
    assert verdict.ok, verdict.failures


def test_solution_is_certified(api: Running) -> None:
    answer = api.http.post("/v1/solve", json={"problem": PROBLEM})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    checked(problem_from_json(PROBLEM), answer.json())


@given(problem=problems())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_problem_gets_a_certificate_or_a_typed_refusal(api: Running, problem: Problem) -> None:
    answer = api.http.post("/v1/solve", json={"problem": problem_to_json(problem), "time_limit": 2})
    if answer.status_code == 200:
        checked(problem, answer.json())
    else:
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"


def test_npz_body_gives_the_same_answer(api: Running) -> None:
    out = io.BytesIO()
    np.savez(out, **problem_to_arrays(problem_from_json(PROBLEM)))  # type: ignore[arg-type]
    answer = api.http.post(
        "/v1/solve?solver=hull&seed=1", content=out.getvalue(), headers={"Content-Type": "application/octet-stream"}
    )
    assert answer.json()["choice"] == api.http.post("/v1/solve", json={"problem": PROBLEM}).json()["choice"]


def test_npz_with_a_pickle_or_damage_is_refused(api: Running) -> None:
    out = io.BytesIO()
    np.savez(out, loss=np.array([{"a": 1}], dtype=object))
    for body in (out.getvalue(), b"PK\x03\x04rubbish", b"", b"\x00" * 100):
        answer = api.http.post("/v1/solve", content=body, headers={"Content-Type": "application/octet-stream"})
        assert_problem(answer, 422, "invalid-problem")


def test_infeasible_is_an_answer_with_the_smallest_limit(api: Running) -> None:
    answer = api.http.post("/v1/solve", json={"problem": PROBLEM, "limits": {"bytes": 10}})
    assert answer.status_code == 200
    certificate = answer.json()["certificate"]
    assert certificate["status"] == "infeasible"
    assert certificate["smallest_limit"] == {"bytes": 1024}


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        ({}, "invalid-input"),
        ({"problem": PROBLEM, "table": "sha256:" + "0" * 64}, "invalid-input"),
        ({"table": "sha256:" + "0" * 64}, "invalid-plan"),
        ({"problem": PROBLEM, "solver": "no-such"}, "unknown-name"),
        ({"problem": PROBLEM, "time_limit": 0}, "invalid-input"),
        ({"problem": PROBLEM, "limits": {"latency": 3}}, "invalid-problem"),
        ({"problem": {"loss": [[None]]}}, "invalid-problem"),
        ({"problem": {"loss": [[1.0]], "cost_bytes": [[2**70]]}}, "invalid-input"),
        ({"problem": {"loss": [[1.0, 2.0], [1.0]]}}, "invalid-problem"),
        ({"problem": {**PROBLEM, "unit_names": ["a", "a", "b"]}}, "invalid-problem"),
    ],
)
def test_bad_problems_are_refused_with_a_reason(api: Running, body: dict[str, Any], slug: str) -> None:
    assert_problem(api.http.post("/v1/solve", json=body), 422, slug)


def test_too_many_units_is_413(api: Running) -> None:
    body = {"problem": {"loss": [[1.0]] * 501}}
    assert_problem(api.http.post("/v1/solve", json=body), 413, "too-large")


def test_more_rows_than_json_holds_is_413_too(api: Running) -> None:
    assert_problem(api.http.post("/v1/solve", json={"problem": {"loss": [[1]] * 20_001}}), 413, "too-large")


@pytest.mark.parametrize("route", ["solve", "frontier"])
def test_unknown_table_is_told_by_its_digest_not_by_a_path(api: Running, route: str) -> None:
    digest = "sha256:" + "0" * 64
    answer = api.http.post(f"/v1/{route}", json={"table": digest})
    assert assert_problem(answer, 422, "invalid-plan")["got"] == digest
    assert str(api.settings.state_dir) not in answer.text


def test_verify_tells_a_claim_from_which_nothing_follows(api: Running) -> None:
    solution = api.http.post("/v1/solve", json={"problem": PROBLEM}).json()
    solution["certificate"]["multipliers"] = {"bytes": -1}
    answer = api.http.post("/v1/plans:verify", json={"solution": solution, "problem": PROBLEM})
    assert answer.status_code == 200
    assert not answer.json()["ok"]
    assert "multiplier" in answer.json()["failures"][0]


def test_frontier_and_plans_on_it(api: Running) -> None:
    answer = api.http.post("/v1/frontier", json={"problem": PROBLEM, "at": [1024, 1536]}).json()
    losses = [point["loss"] for point in answer["points"]]
    assert losses == sorted(losses, reverse=True)
    assert [u["name"] for u in answer["uniform"]] == ["int2-g64", "int3-g64"]
    for value, found in zip((1024, 1536), answer["solutions"], strict=True):
        checked(problem_from_json(PROBLEM).with_limit("bytes", value), found)


def test_verify_accepts_the_truth_and_tells_a_lie(api: Running) -> None:
    solution = api.http.post("/v1/solve", json={"problem": PROBLEM}).json()
    body = {"problem": PROBLEM, "solution": solution}
    assert api.http.post("/v1/plans:verify", json=body).json()["ok"]
    solution["certificate"]["lower_bound"] = solution["certificate"]["loss"] = 0.1
    verdict = api.http.post("/v1/plans:verify", json=body).json()
    assert not verdict["ok"]
    assert verdict["failures"]


@pytest.mark.parametrize(
    "body", [[], {}, {"solution": {}}, {"plan": {}, "solution": {}}, {"plan": 3}, {"plan": {}, "x": 1}]
)
def test_verify_refuses_what_it_cannot_read(api: Running, body: Any) -> None:
    answer = api.http.post("/v1/plans:verify", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_many_at_once_are_all_answered(api: Running) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: api.http.post("/v1/solve", json={"problem": PROBLEM}).json()["choice"], range(40))
        )
    assert answers == [answers[0]] * 40


def test_killed_solver_process_is_replaced(tmp_path: Path) -> None:
    with running_server(tmp_path, solve_processes=1) as server:
        for _ in range(3):
            assert server.http.post("/v1/solve", json={"problem": PROBLEM}).status_code == 200
            for process in server.state.pool._all:
                os.kill(process._child.pid, signal.SIGKILL)


def test_solver_past_its_wall_limit_is_stopped_and_the_next_request_is_served(tmp_path: Path) -> None:
    with running_server(tmp_path, solve_seconds=5) as server:
        assert server.http.post("/v1/solve", json={"problem": PROBLEM}).status_code == 200
        (process,) = server.state.pool._all
        os.kill(process._child.pid, signal.SIGSTOP)
        waking = threading.Timer(1.0, os.kill, [process._child.pid, signal.SIGCONT])
        waking.start()
        assert server.http.post("/v1/solve", json={"problem": PROBLEM}).status_code == 200, "late, but in time"
        waking.join()
        os.kill(process._child.pid, signal.SIGSTOP)
        assert_problem(server.http.post("/v1/solve", json={"problem": PROBLEM}), 500, "out-of-resources")
        assert server.http.post("/v1/solve", json={"problem": PROBLEM}).status_code == 200


def test_solver_processes_have_limits_and_end_with_the_server(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        server.http.post("/v1/solve", json={"problem": PROBLEM})
        pids = [process._child.pid for process in server.state.pool._all]
        limits = Path(f"/proc/{pids[0]}/limits").read_text()
        assert "Max core file size        0" in limits
        assert "Max file size             0" in limits
        environment = Path(f"/proc/{pids[0]}/environ").read_bytes()
        assert b"HF_TOKEN" not in environment
        assert b"HOME=" not in environment
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)
