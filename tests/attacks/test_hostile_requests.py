"""Hostile requests, as bytes on the wire: each is answered soon, typed and without harm, and the next one is served."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.keys import KeyFile
from service.middleware import SECURITY_HEADERS
from tests.api.running import Running, assert_problem, running_server
from tests.dashboard.sample_state import llama_units, plan_of, store_table, table_of

JOB = b'{"kind":"inspect","model":"hf:a/b"}'


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("hostile"), max_request_bytes=2**16) as server:
        yield server


def send(api: Running, data: bytes) -> bytes:
    """What comes back for these bytes, until the server closes or says nothing for a while."""
    host, port = api.server.address
    with socket.create_connection((host, port), timeout=10) as link:
        link.sendall(data)
        link.settimeout(3)
        found = b""
        try:
            while chunk := link.recv(65536):
                found += chunk
        except (TimeoutError, ConnectionResetError):
            return found  # it says no more, or has hung up
        return found


def post(headers: str, body: bytes = JOB) -> bytes:
    return (
        f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}\r\n".encode() + body
    )


SMUGGLED = b"GET /v1/solvers HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WIRE = {
    "two lengths": post("Content-Length: 35\r\nContent-Length: 3\r\n"),
    "a negative length": post("Content-Length: -1\r\n"),
    "a length in words": post("Content-Length: many\r\n"),
    "length and chunks (request smuggling)": post(
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED
    ),
    "an unknown transfer encoding": post("Transfer-Encoding: chunked, identity\r\n"),
    "a header of a megabyte": post("X-Long: " + "x" * 2**20 + "\r\n"),
    "a folded header": post("X-Folded: a\r\n b\r\nContent-Length: 35\r\n"),
    "a line feed in a header name": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-\nY: 1\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "not HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
}


@pytest.mark.parametrize("name", WIRE)
def test_bytes_that_are_no_request_harm_nobody(api: Running, name: str) -> None:
    before = len(api.store.page(limit=1000))
    answer = send(api, WIRE[name])
    status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
    assert status < 500
    head, _, body = answer.partition(b"\r\n\r\n")
    given = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
    for header, value in SECURITY_HEADERS.items():
        assert given[header.lower().encode()] == value.lower().encode()
    if status >= 400:
        assert given[b"content-type"] == b"application/problem+json"
        assert json.loads(body)["instance"] == f"urn:bitwright:request:{given[b'x-request-id'].decode()}"
    smuggled = answer.count(b"HTTP/1.1 200")
    assert "smuggling" not in name or smuggled == 0, "a request inside a request was answered"
    if status >= 400 or status == 0:
        assert len(api.store.page(limit=1000)) == before
    assert api.http.get("/livez").status_code == 200


def test_a_body_that_never_comes_holds_up_nobody(api: Running) -> None:
    host, port = api.server.address
    held = [socket.create_connection((host, port)) for _ in range(50)]
    for link in held:
        link.sendall(post("Content-Length: 1000\r\n", b"{"))
    assert api.http.post("/v1/jobs", content=JOB, headers={"Content-Type": "application/json"}).status_code == 202
    for link in held:
        link.close()


@pytest.mark.parametrize(
    "path",
    ["/assets/../keys.json", "/assets/..%2f..%2fkeys.json", "/assets/%2e%2e/keys.json", "/assets//etc/passwd",
     "/v1/plans/..%2f..%2fbitwright.db", "/v1/plans/sha256:..%2f..%2f..%2fkeys.json", "/v1/sensitivities/%00",
     "/v1/jobs/..%2fkeys", "/v1/batches/%00", "/v1/webhooks/..%2f..", "/v1/plans/sha256:" + "A" * 64],
)  # fmt: skip
def test_paths_that_climb_find_nothing(api: Running, path: str) -> None:
    (api.settings.state_dir / "keys.json").write_text('{"bitwright_keys": 1, "keys": []}')
    answer = send(api, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ", 2)[1] in (b"404", b"400", b"422")
    (api.settings.state_dir / "keys.json").unlink()


def test_foreign_pages_and_rebound_names_are_refused(api: Running) -> None:
    for headers in ({"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = api.http.post("/v1/jobs", content=JOB, headers={"Content-Type": "application/json", **headers})
        assert_problem(answer, 403, "forbidden")
    preflight = api.http.options("/v1/jobs", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in preflight.headers, "CORS is off"


#: What required query parameters are given.
REQUIRED = {"engine": "llama.cpp"}


def test_a_second_tenant_walks_every_route_and_sees_nothing_of_the_first(tmp_path: Path) -> None:
    """API1 of OWASP's list: every address that names something of another tenant's is 404, every list is empty."""
    keys = KeyFile(tmp_path / "keys.json")
    (ann, _), (bob, _) = (keys.create(name, tenant=name) for name in ("ann", "bob"))
    with running_server(tmp_path) as server:
        mine = _everything_of(server, {"Authorization": f"Bearer {ann}"})
        walked = 0
        for path, item in server.http.get("/openapi.json").json()["paths"].items():
            names = re.findall(r"\{(\w+)\}", path)
            if not names:
                continue
            address = path
            for name in names:
                address = address.replace(f"{{{name}}}", mine.get(f"{path.split('/')[2]}.{name}", mine.get(name, "x")))
            for method, operation in item.items():
                asked = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query" and p["required"]]
                query = {name: REQUIRED[name] for name in asked}
                answer = server.http.request(method, address, params=query, headers={"Authorization": f"Bearer {bob}"})
                assert answer.status_code == 404, (method, address, answer.text)
                allowed = server.http.request(method, address, params=query, headers={"Authorization": f"Bearer {ann}"})
                assert allowed.status_code != 404 or "/result" in path, (method, address, allowed.text)
                walked += 1
        assert walked >= 14
        for member in ("jobs", "webhooks", "texts", "problems"):
            assert server.http.get(f"/v1/{member}", headers={"Authorization": f"Bearer {bob}"}).json()[member] == []


def test_a_second_tenant_names_things_of_the_first_in_bodies_and_gets_what_unknown_names_get(tmp_path: Path) -> None:
    """Not only addresses name things. Each pair: the first tenant's name, and one that nobody has."""
    keys = KeyFile(tmp_path / "keys.json")
    (ann, _), (bob, _) = (keys.create(name, tenant=name) for name in ("ann", "bob"))
    with running_server(tmp_path) as server:
        mine = _everything_of(server, {"Authorization": f"Bearer {ann}"})
        plan = server.http.get(f"/v1/plans/{mine['plans.digest']}", headers={"Authorization": f"Bearer {ann}"}).json()
        inspect = {"kind": "sensitivity", "model": "hf:a/b"}
        evaluate = {"kind": "evaluate", "model": "hf:a/b"}
        unknown, table = "sha256:" + "0" * 64, mine["sensitivities.digest"]
        digits = mine["plans.digest"].removeprefix("sha256:")[:16]
        bodies: list[tuple[str, Any, str, str]] = [
            ("/v1/solve", lambda name: {"table": name, "limits": {"bytes": 10**9}}, table, unknown),
            ("/v1/frontier", lambda name: {"table": name}, table, unknown),
            ("/v1/solve", lambda name: {"problem": name, "limits": {"bytes": 9}}, mine["problems.digest"], unknown),
            ("/v1/frontier", lambda name: {"problem": name, "limits": {"bytes": 9}}, mine["problems.digest"], unknown),
            ("/v1/plans:verify", lambda name: {"plan": plan, "table": name}, table, unknown),
            ("/v1/jobs", lambda name: {**inspect, "calibration": name}, mine["texts.digest"], unknown),
            ("/v1/jobs", lambda name: {**evaluate, "text": name}, mine["texts.digest"], unknown),
            ("/v1/jobs", lambda name: {**evaluate, "checkpoint": name}, f"{digits}-packed", "0" * 16 + "-packed"),
            ("/v1/batches", lambda name: {"models": ["hf:a/b"], "job": {**inspect, "calibration": name}},
             mine["texts.digest"], unknown),
        ]  # fmt: skip
        for path, body, known, nobodys in bodies:
            foreign, absent, own = (
                server.http.post(path, json=body(name), headers={"Authorization": f"Bearer {key}"})
                for name, key in ((known, bob), (nobodys, bob), (known, ann))
            )
            assert own.status_code in (200, 202), (path, own.text)
            assert foreign.status_code == absent.status_code >= 400, (path, foreign.text, absent.text)
            members = ("type", "title", "detail", "hint", "errors")
            assert [foreign.json().get(m) for m in members] == [absent.json().get(m) for m in members]
        priced = {"engine": "llama.cpp", "table": table}
        for key, status in ((bob, 404), (ann, 200)):
            answer = server.http.post(
                "/v1/plans:preflight", params=priced, json=plan, headers={"Authorization": f"Bearer {key}"}
            )
            assert answer.status_code == status


def test_names_of_tenants_and_keys_never_spell_another_tenants_batch(tmp_path: Path) -> None:
    """Once the batch of tenant `a/b` with the key `c` was also that of tenant `a` with the key `b/c`."""
    keys = KeyFile(tmp_path / "keys.json")
    (first, _), (second, _) = (keys.create("k", tenant=tenant) for tenant in ("a/b", "a"))
    body = {"models": ["hf:a/b"], "job": {"kind": "inspect"}}
    with running_server(tmp_path) as server:
        found = [
            server.http.post(
                "/v1/batches", json=body, headers={"Authorization": f"Bearer {text}", "Idempotency-Key": key}
            ).json()["id"]
            for text, key in ((first, "c"), (second, "b/c"))
        ]
    assert found[0] != found[1]


def _everything_of(server: Running, headers: dict[str, str]) -> dict[str, Any]:
    """One of each thing that has an address, made by this tenant."""
    http = httpx.Client(base_url=server.url, headers=headers, timeout=30)
    batch = http.post("/v1/batches", json={"models": ["hf:a/b"], "job": {"kind": "inspect"}}).json()["id"]
    made = table_of("hf:a/b", llama_units(2), 7)
    planned = plan_of(made, 4.0)
    server.blobs.put_as("plans", planned.digest, planned)
    plan, table = planned.digest, store_table(server.blobs, made)
    body = {"kind": "inspect", "model": "hf:a/b", "callback": "https://hooks.example.com/x"}
    job = server.claim(http.post("/v1/jobs", json=body).json()["id"])
    server.store.succeed(job.id, job.attempt, {"plan_digest": plan, "table_digest": table})
    delivery = http.get("/v1/webhooks").json()["webhooks"][0]["id"]
    text = http.post("/v1/texts", content=b"some text", headers={"Content-Type": "text/plain"}).json()["digest"]
    npz = io.BytesIO()
    np.savez(npz, loss=np.ones((2, 2)), cost_bytes=np.ones((2, 2), np.int64))
    media = {"Content-Type": "application/octet-stream"}
    problem = http.post("/v1/problems", content=npz.getvalue(), headers=media).json()["digest"]
    http.close()
    return {
        "job_id": job.id, "batch_id": batch, "plans.digest": plan, "sensitivities.digest": table,
        "delivery_id": delivery, "target": "autoround", "texts.digest": text, "problems.digest": problem,
    }  # fmt: skip
