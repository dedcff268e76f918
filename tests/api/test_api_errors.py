"""Every error leaves as an RFC 9457 problem document, with the headers that belong to it."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.middleware import CSP, SECURITY_HEADERS
from tests.api.running import Running, assert_problem, running_server

JSON = {"Content-Type": "application/json"}


def test_unknown_address_is_404(api: Running) -> None:
    assert_problem(api.http.get("/v2/jobs"), 404, "not-found")


def test_wrong_method_is_405_and_names_every_method_of_the_address(api: Running) -> None:
    answer = api.http.put("/v1/jobs", json={})
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no body"),
        (b"{", "not JSON"),
        (b'{"kind": NaN}', "finite"),
        (b'{"kind": "\xff"}', "UTF-8"),
        (b'"\\ud800"', "surrogate"),
        (b'{"model": "a\\u0000b"}', "NUL"),
        (b'{"seed": 123456789012345678901234567890}', "64 bits"),
        (b'{"seed": 1e999}', "float64"),
        (b"9" * 5000, "JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"kind": "inspect", "model": "hf:a/b", "kind": "plan"}', "twice"),
        (b'{"kind": "inspect", "x": [{"a": 1, "a": 1}]}', "twice"),
        (b"[" * 100_000 + b"]" * 100_000, "deeply"),
        (b"[" * 500_000, "deeply"),
    ],
)
def test_broken_json_is_422(api: Running, body: bytes, words: str) -> None:
    problem = assert_problem(api.http.post("/v1/jobs", content=body, headers=JSON), 422, "invalid-input")
    assert words in problem["detail"]


def test_wrong_members_come_with_json_pointers(api: Running) -> None:
    body = {"kind": "plan", "model": "hf:org/name", "budget": "4bpw", "seed": -1, "a/b": 1}
    problem = assert_problem(api.http.post("/v1/jobs", json=body), 422, "invalid-input")
    assert {error["pointer"] for error in problem["errors"]} == {"/seed", "/a~1b"}


@pytest.mark.parametrize("body", [{}, {"kind": "zzz"}, {"model": "hf:a/b"}])
def test_unknown_kinds_are_told_the_known_ones(api: Running, body: dict[str, str]) -> None:
    problem = assert_problem(api.http.post("/v1/jobs", json=body), 422, "invalid-input")
    assert problem["errors"][0]["pointer"] == "/kind"
    assert "inspect, sensitivity, plan, execute, evaluate" in problem["detail"]


def test_rings_are_counted_only_where_a_broker_takes_them(api: Running) -> None:
    api.submit()
    assert "bitwright_outbox_unsent" not in api.http.get("/metrics").text


def test_wrong_parameters_come_with_their_names(api: Running) -> None:
    problem = assert_problem(api.http.get("/v1/jobs?page_size=-1"), 422, "invalid-input")
    assert problem["errors"][0]["parameter"] == "page_size"


@pytest.mark.parametrize("budget", ["4 parsecs", "0bpw", "9e99GiB", ""])
def test_wrong_budget_says_what_a_budget_is(api: Running, budget: str) -> None:
    problem = assert_problem(
        api.http.post("/v1/jobs", json={"kind": "plan", "model": "hf:a/b", "budget": budget}), 422, "invalid-budget"
    )
    assert problem["expected"]


def test_body_of_the_limit_is_read_and_one_byte_more_is_413(api: Running) -> None:
    limit = api.settings.max_request_bytes
    text = {"Content-Type": "text/plain"}
    assert api.http.post("/v1/texts", content=b"x" * limit, headers=text).status_code == 201
    assert_problem(api.http.post("/v1/texts", content=b"x" * (limit + 1), headers=text), 413, "too-large")


def test_chunked_body_over_the_limit_is_413(api: Running) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    answer = api.http.post("/v1/jobs", content=chunks(), headers=JSON)
    assert_problem(answer, 413, "too-large")


def test_length_that_lies_about_a_large_body_is_413_before_it_is_read(api: Running) -> None:
    host, port = api.server.address
    with socket.create_connection((host, port), timeout=20) as raw:
        raw.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\n\r\n{}"
        )
        assert raw.recv(64).startswith(b"HTTP/1.1 413")


def test_content_encoding_is_refused(api: Running) -> None:
    assert_problem(
        api.http.post("/v1/jobs", content=b"x", headers={**JSON, "Content-Encoding": "gzip"}),
        415,
        "unsupported-media-type",
    )


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""]
)
def test_other_content_types_are_415(api: Running, media: str) -> None:
    assert_problem(
        api.http.post("/v1/jobs", content=b"{}", headers={"Content-Type": media}), 415, "unsupported-media-type"
    )


def test_unexpected_error_is_500_without_a_trace(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:

        def explode() -> None:
            raise RuntimeError("a secret from inside")

        app: Any = server.server.config.app
        app.add_api_route("/explode", explode)
        answer = server.http.get("/explode")
        assert_problem(answer, 500, "internal")
        assert "secret" not in answer.text
        assert server.http.get("/livez").status_code == 200


def test_request_id_is_echoed_when_it_is_one(api: Running) -> None:
    assert api.http.get("/livez", headers={"X-Request-Id": "trace-12345"}).headers["x-request-id"] == "trace-12345"
    assert api.http.get("/livez", headers={"X-Request-Id": "a b <script>"}).headers["x-request-id"] != "a b <script>"


@pytest.mark.parametrize("path", ["/", "/v1/jobs", "/nowhere", "/assets/app.js", "/livez"])
def test_every_answer_has_the_security_headers(api: Running, path: str) -> None:
    headers = api.http.get(path).headers
    assert headers["content-security-policy"] == CSP
    assert "unsafe" not in CSP
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_every_answer_of_every_route_and_every_error_has_the_security_headers(api: Running) -> None:
    """All operations as they are and with what makes them fail: no scope of ours forgets the headers."""
    told: Counter[int] = Counter()
    sent = ((None, ""), (b"{", "application/json"), (b"x", "text/html"), (b"y" * 2**16, "text/plain"))
    for path, item in api.http.get("/openapi.json").json()["paths"].items():
        address = re.sub(r"\{\w+\}", "x", path)
        for method in (*item, "trace"):
            for body, media in sent:
                headers = {"Content-Type": media} if media else {}
                with api.http.stream(method, address, content=body, headers=headers) as answer:
                    told[answer.status_code] += 1
                    for name, value in SECURITY_HEADERS.items():
                        assert answer.headers[name] == value, (method, address, answer.status_code)
                    assert answer.headers["x-request-id"]
                    assert "access-control-allow-origin" not in answer.headers
                    problem = answer.headers.get("content-type") == "application/problem+json"
                    assert problem == (answer.status_code >= 400), (method, address, answer.status_code)
    assert {200, 404, 405, 415, 422} <= set(told), told


def test_head_answers_like_get_without_a_body(api: Running) -> None:
    get, head = api.http.get("/v1/solvers"), api.http.head("/v1/solvers")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["etag"] == get.headers["etag"]


def test_nul_and_huge_numbers_in_addresses_are_no_server_error(api: Running) -> None:
    for path in (
        "/v1/jobs/%00",
        "/v1/jobs/%ff%fe",
        "/v1/plans/%00",
        "/v1/jobs?page_size=999999999999999999999999",
        "/v1/jobs/9" + "9" * 400,
    ):
        assert api.http.get(path).status_code < 500, path
    answer = api.http.get("/v1/jobs/x/events", headers={"Last-Event-ID": "9" * 40})
    assert answer.status_code < 500


def test_probes_and_metrics(api: Running) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        assert api.http.get(path).json() == {"status": "ok"}
    text = api.http.get("/metrics").text
    assert 'bitwright_jobs{state="queued"}' in text
    assert "bitwright_queue_oldest_seconds" in text


def test_port_in_use_is_a_typed_error(api: Running) -> None:
    from bitwright.core.errors import InvalidSetting
    from service.server import listen

    with pytest.raises(InvalidSetting, match="cannot listen"):
        listen(*api.server.address)
