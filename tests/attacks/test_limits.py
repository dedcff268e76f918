"""Every limit of the settings, at the limit and one beyond it. A new setting fails here until it says how it is tested.

research/06 C6 lists them; where the test of a limit stands elsewhere, ELSEWHERE names it.
"""

from __future__ import annotations

import importlib
import inspect
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bitwright.core.errors import BitwrightError, InvalidModel, WorkerLost
from bitwright.settings import Settings
from service.solve_pool import SolvePool
from tests.api.running import Running, assert_problem, running_server
from worker.steps.context import Context

MODELS = Path(__file__).resolve().parents[1] / "models"
SMALL = {
    "max_request_bytes": 4096, "max_solve_units": 5, "max_solve_formats": 3, "max_solve_constraints": 2,
    "max_name_chars": 8, "max_number": 1e6, "max_threads": 2, "max_plan_bytes": 1024, "wait_seconds": 1,
    "solve_cpu_seconds": 1, "stream_seconds": 1, "ping_seconds": 0.2, "tenant_writing_jobs": 2,
}  # fmt: skip
#: Setting -> the test (module:function) that holds it at its limit and beyond.
ELSEWHERE = {
    **dict.fromkeys(
        ("tenant_queued_jobs", "tenant_streams", "tenant_waits", "batch_jobs", "max_text_bytes", "max_problem_bytes"),
        "tests.api.test_api_batches:test_limits_of_a_tenant_hold_at_the_limit_and_one_more",
    ),
    "tenant_uploads": "tests.api.test_uploads:test_a_tenant_keeps_so_many_files_and_not_one_more",
    "tenant_active_jobs": "tests.jobs.test_turns:test_a_tenant_at_its_limit_waits_and_the_others_do_not",
    **dict.fromkeys(
        ("job_descriptors", "job_file_bytes", "job_report_bytes", "job_memory_bytes"),
        "tests.worker.test_runner:test_limits_of_the_sandbox_hold_at_the_limit_and_one_beyond",
    ),
    "busy_seconds": "tests.jobs.test_database:test_a_locked_database_is_temporary_and_accepts_nothing",
    "solve_seconds": "tests.api.test_api_solve:"
    "test_solver_past_its_wall_limit_is_stopped_and_the_next_request_is_served",
    "job_seconds": "tests.worker.test_runner:"
    "test_wall_time_is_limited_and_what_passes_it_is_killed_within_five_seconds",
    "job_cpu_seconds": "tests.worker.test_runner:test_processor_time_is_limited_a_little_below_and_a_little_above",
    "job_resident_bytes": "tests.worker.test_runner:test_resident_memory_is_limited_at_the_limit_and_one_byte_beyond",
    "max_attempts": "tests.worker.test_runner:test_a_child_that_dies_twice_may_still_succeed",
    "webhook_seconds": "tests.api.test_webhooks:test_a_receiver_that_does_not_answer_in_time_is_asked_again",
    "page_size": "tests.api.test_api_pages:test_default_page_size_is_the_setting",
    "retention_days": "tests.worker.test_leftovers:test_unfinished_files_go_when_nobody_can_be_writing_them",
}
#: Places, addresses, paces and sizes of this installation: nobody who asks can reach beyond them.
NO_LIMITS = {
    *("state_dir", "database_url", "broker_url", "model_roots", "host", "port", "api_key", "workers", "alive_file"),
    *("lease_seconds", "renew_seconds", "reaper_seconds", "poll_seconds", "relay_seconds", "heal_seconds"),
    *("cancel_seconds", "progress_seconds", "settle_seconds", "ping_seconds", "webhook_poll_seconds"),
    *("database_connections", "solve_processes", "shards", "cut_weights", "webhook_internal", "webhook_proxy"),
    *("json_logs", "otlp_endpoint", "device"),
}
Check = Callable[[Running, Path], None]
JOB = {"kind": "inspect", "model": "hf:a/b"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory):
    with running_server(tmp_path_factory.mktemp("limits"), **SMALL) as server:
        yield server


def problem(units: int = 2, formats: int = 2, **more: object) -> dict[str, object]:
    rows = [list(range(formats, 0, -1))] * units
    costs = [list(range(1, formats + 1))] * units
    return {"loss": rows, "cost_bytes": costs, "limit_bytes": units * formats, **more}


def solved(api: Running, status: int, found: dict[str, object]) -> dict[str, object]:
    answer = api.http.post("/v1/solve", json={"problem": found})
    assert answer.status_code == status, answer.text
    return answer.json()


def request_bytes(api: Running, _: Path) -> None:
    def post(size: int) -> httpx.Response:
        body = json.dumps(JOB).encode()
        return api.http.post(
            "/v1/jobs", content=body + b" " * (size - len(body)), headers={"Content-Type": "application/json"}
        )

    assert post(SMALL["max_request_bytes"]).status_code == 202
    assert_problem(post(SMALL["max_request_bytes"] + 1), 413, "too-large")


def solve_units(api: Running, _: Path) -> None:
    solved(api, 200, problem(units=5))
    solved(api, 413, problem(units=6))


def solve_formats(api: Running, _: Path) -> None:
    solved(api, 200, problem(formats=3))
    solved(api, 413, problem(formats=4))


def solve_constraints(api: Running, _: Path) -> None:
    def rules(count: int) -> dict[str, object]:
        """At most two units in format 0, said so many times; one limit stands beside them."""
        pairs = [[rule, unit] for rule in range(count) for unit in range(2)]
        formats = [[rule, 0] for rule in range(count)]
        return {
            "rule_subset": pairs, "rule_format": formats, "rule_sense": [-1] * count, "rule_count": [2] * count
        }  # fmt: skip

    solved(api, 200, problem(**rules(1)))
    solved(api, 413, problem(**rules(2)))


def name_chars(api: Running, _: Path) -> None:
    solved(api, 200, problem(unit_names=["x" * 8, "y"]))
    assert "too long" in str(solved(api, 422, problem(unit_names=["x" * 9, "y"]))["detail"])


def largest_number(api: Running, _: Path) -> None:
    for place in ("loss", "cost_bytes", "limit_bytes"):
        for value, status in ((1_000_000, 200), (1_000_001, 422)):
            found = problem()
            found[place] = value if place == "limit_bytes" else [[value, 1], [2, 1]]
            solved(api, status, found)
    assert_problem(
        api.http.post("/v1/solve", json={"problem": problem(), "limits": {"bytes": 1e6 + 1}}), 422, "invalid-problem"
    )


def threads(api: Running, _: Path) -> None:
    assert api.http.post("/v1/jobs", json={**JOB, "threads": 2}).status_code == 202
    assert_problem(api.http.post("/v1/jobs", json={**JOB, "threads": 3}), 422, "invalid-input")


def writing_jobs(api: Running, _: Path) -> None:
    """Waiting and running ones count; jobs that write nothing, and jobs that have ended, do not."""
    plan = {"kind": "plan", "model": "hf:a/b", "budget": "4bpw"}
    writing = {**plan, "to": "packed"}
    ids = [api.http.post("/v1/jobs", json=writing).json()["id"] for _ in range(2)]
    running = api.claim(ids[0])
    refused = api.http.post("/v1/jobs", json=writing, headers={"Idempotency-Key": '"later"'})
    assert_problem(refused, 429, "too-many-requests")
    assert int(refused.headers["retry-after"]) > 0
    batch = {"models": ["hf:a/b"], "budgets": ["4bpw"], "job": {"kind": "plan", "to": "packed"}}
    assert_problem(api.http.post("/v1/batches", json=batch), 429, "too-many-requests")
    assert api.http.post("/v1/jobs", json=plan).status_code == 202
    api.store.succeed(running.id, running.attempt, {})
    assert api.http.post("/v1/jobs", json=writing, headers={"Idempotency-Key": '"later"'}).status_code == 202
    assert_problem(api.http.post("/v1/jobs", json=writing), 429, "too-many-requests")


def plan_bytes(api: Running, _: Path) -> None:
    def post(size: int) -> dict[str, object]:
        plan = {"x": "y" * (size - len('{"x":""}'))}
        return api.http.post("/v1/jobs", json={"kind": "execute", "model": "hf:a/b", "plan": plan}).json()

    assert "too large" not in str(post(1024)["detail"]), "it is read, and found to be no plan"
    assert "the plan is too large" in str(post(1025)["detail"])


def longest_wait(api: Running, _: Path) -> None:
    for asked, granted in (("1", "wait=1"), ("2", "wait=1")):
        answer = api.http.post("/v1/jobs", json=JOB, headers={"Prefer": f"wait={asked}"})
        assert answer.headers["preference-applied"] == granted


def longest_stream(api: Running, _: Path) -> None:
    """An open stream ends by itself; the client resumes where it stood."""
    path, begin = f"/v1/jobs/{api.submit()['id']}/events", time.monotonic()
    with api.http.stream("GET", path) as stream:
        text = b"".join(stream.iter_bytes()).decode()
    assert "event: queued" in text
    assert ": ping" in text
    assert time.monotonic() - begin >= 1.0, "it ended before its time"


def solve_cpu(_: Running, tmp_path: Path) -> None:
    """Processor time is counted for each request, not for the life of a solver process."""
    pool = SolvePool(Settings(state_dir=tmp_path, solve_cpu_seconds=1, solve_seconds=120))
    try:
        for _again in range(3):
            with pytest.raises(BitwrightError, match="time ran out"):
                pool.run("solve", _hard(0.6))
        with pytest.raises(BitwrightError, match="processor time"):
            pool.run("solve", _hard(100.0))
    finally:
        pool.close()


def _hard(seconds: float) -> bytes:
    """Enumeration that is not through before its time is over."""
    formats = [[i, j] for i in range(8) for j in range(8)]
    pairs = {"pair_unit": [[0, 1]] * 64, "pair_format": formats, "pair_loss": [0.5] * 64}
    found = problem(units=8, formats=8, **pairs)
    return json.dumps({"problem": found, "solver": "brute", "time_limit": seconds}).encode()


def solve_memory(_: Running, tmp_path: Path) -> None:
    """What a process may address is the kernel's to count: it is told the very number."""

    def solve(memory: int) -> None:
        pool = SolvePool(Settings(state_dir=tmp_path, solve_memory_bytes=memory))
        try:
            pool.run("solve", json.dumps({"problem": problem(units=20_000, formats=8)}).encode())
            (process,) = pool._all
            assert resource.prlimit(process._child.pid, resource.RLIMIT_AS) == (memory, memory)
        finally:
            pool.close()

    for memory in (2**30, 2**30 + 1):
        solve(memory)
    with pytest.raises(WorkerLost, match="memory"):
        solve(2**26)  # less than the libraries need to load


def model_bytes(_: Running, tmp_path: Path) -> None:
    total = (MODELS / "llama-stdlib/model.safetensors").stat().st_size
    _opened(tmp_path, max_model_bytes=total)
    with pytest.raises(InvalidModel, match="too large"):
        _opened(tmp_path, max_model_bytes=total - 1)


def header_bytes(_: Running, tmp_path: Path) -> None:
    with (MODELS / "llama-stdlib/model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    _opened(tmp_path, max_header_bytes=length)
    with pytest.raises(InvalidModel, match="header"):
        _opened(tmp_path, max_header_bytes=length - 1)


def _opened(tmp_path: Path, **limits: int) -> None:
    Context(Settings(state_dir=tmp_path, model_roots={"m": MODELS}, **limits)).open("file:m/llama-stdlib")


HERE: dict[str, Check] = {
    "max_request_bytes": request_bytes, "max_solve_units": solve_units, "max_solve_formats": solve_formats,
    "max_solve_constraints": solve_constraints, "max_name_chars": name_chars, "max_number": largest_number,
    "max_threads": threads, "max_plan_bytes": plan_bytes, "wait_seconds": longest_wait,
    "stream_seconds": longest_stream, "solve_cpu_seconds": solve_cpu, "solve_memory_bytes": solve_memory,
    "tenant_writing_jobs": writing_jobs, "max_model_bytes": model_bytes, "max_header_bytes": header_bytes,
}  # fmt: skip


@pytest.mark.parametrize("setting", HERE)
def test_a_limit_holds_at_the_limit_and_one_beyond(api: Running, tmp_path: Path, setting: str) -> None:
    HERE[setting](api, tmp_path)


def test_every_setting_is_tested_at_its_limit_or_is_none() -> None:
    told = [*HERE, *ELSEWHERE, *NO_LIMITS]
    assert sorted(told) == sorted(Settings.model_fields), "a setting without a test, or one that is gone"


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_stand_elsewhere_are_there(place: str) -> None:
    module, _, name = place.partition(":")
    assert inspect.isfunction(getattr(importlib.import_module(module), name))
