"""Whatever is sent: a documented status, a problem document for every error, never a 5xx."""

from __future__ import annotations

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.openapi_examples import EXAMPLES
from tests.api.running import Running

shared = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\0", "\ud800", "int4-g64", "4bpw", "hf:a/b"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = (
    "kind",
    "model",
    "budget",
    "formats",
    "metric",
    "engine",
    "recipe",
    "calibration",
    "seed",
    "threads",
    "plan",
    "to",
    "text",
    "checkpoint",
    "tokens",
    "deadline",
    "priority",
    "samples",
    "solver",
    "time_limit",
    "confirm",
    "granularity",
)


def acceptable(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"].startswith("https://bitwright.dev/problems/")


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@given(
    body=st.dictionaries(st.sampled_from(MEMBERS), values, max_size=6),
    kind=st.sampled_from(["plan", "inspect", "sensitivity", "execute", "evaluate"]),
)
@shared
def test_job_bodies(api: Running, body: dict[str, Any], kind: str) -> None:
    body.setdefault("kind", kind)
    body.setdefault("model", "hf:org/name")
    acceptable(api.http.post("/v1/jobs", content=encoded(body), headers={"Content-Type": "application/json"}))


@given(
    body=st.binary(max_size=200) | values.map(encoded),
    path=st.sampled_from(
        [
            "/v1/jobs",
            "/v1/solve",
            "/v1/frontier",
            "/v1/plans:verify",
            "/v1/plans:export?target=mlx",
            "/v1/plans:preflight?engine=mlx",
            "/v1/texts",
        ]
    ),
)
@shared
def test_any_bytes_on_any_route(api: Running, body: bytes, path: str) -> None:
    media = "text/plain" if path == "/v1/texts" else "application/json"
    acceptable(api.http.post(path, content=body, headers={"Content-Type": media}))


@given(
    member=st.sampled_from(
        [
            "loss",
            "cost_bytes",
            "limit_bytes",
            "tie",
            "unit_names",
            "format_names",
            "size",
            "rate",
            "rule_subset",
            "pair_loss",
            "limit_x@y",
        ]
    ),
    value=values,
)
@shared
def test_problems_with_one_strange_array(api: Running, member: str, value: Any) -> None:
    body = {"problem": {**EXAMPLES["solve"]["problem"], member: value}, "time_limit": 1}
    acceptable(api.http.post("/v1/solve", content=encoded(body), headers={"Content-Type": "application/json"}))


@given(
    member=st.sampled_from(["choice", "loss", "certificate", "solver", "info"]),
    inner=st.sampled_from(["", "status", "multipliers", "gap", "cost", "loss", "lower_bound", "limits"]),
    value=values,
)
@shared
def test_solutions_with_one_strange_member(api: Running, member: str, inner: str, value: Any) -> None:
    solution = json.loads(json.dumps(EXAMPLES["solution"]))
    if member == "certificate" and inner:
        solution["certificate"][inner] = value
    else:
        solution[member] = value
    body = {"problem": EXAMPLES["solve"]["problem"], "solution": solution}
    acceptable(api.http.post("/v1/plans:verify", content=encoded(body), headers={"Content-Type": "application/json"}))


@given(
    query=st.dictionaries(
        st.sampled_from(
            [
                "state",
                "kind",
                "page_size",
                "page_token",
                "wait",
                "validate_only",
                "target",
                "solver",
                "time_limit",
                "seed",
                "points",
                "limit",
            ]
        ),
        st.text(max_size=12),
        max_size=4,
    ),
    path=st.sampled_from(
        [
            "/v1/jobs",
            "/v1/jobs/x",
            "/v1/jobs/x/events",
            "/v1/solvers",
            "/v1/plans/x",
            "/v1/plans/x/export/y",
            "/metrics",
        ]
    ),
    headers=st.dictionaries(
        st.sampled_from(
            ["Last-Event-ID", "If-None-Match", "Prefer", "Idempotency-Key", "Accept", "X-Request-Id", "If-Match"]
        ),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
        max_size=3,
    ),
)
@shared
def test_any_parameters_and_headers(api: Running, query: dict[str, str], path: str, headers: dict[str, str]) -> None:
    params = {key: value.encode("utf-8", "replace").decode() for key, value in query.items()}
    acceptable(api.http.get(path, params=params, headers=headers))
