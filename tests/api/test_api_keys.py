"""API keys: needed beyond loopback, scoped, expiring, rotated without a gap; tenants never see each other."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bitwright.client import Client
from bitwright.core.errors import Forbidden, InvalidInput, InvalidSetting, NotFound, Unauthorized
from bitwright.settings import Settings
from service.auth import is_loopback
from service.keys import SCOPES, KeyFile, main
from service.openapi_examples import EXAMPLES
from service.server import Server
from tests.api.running import Running, assert_problem, running_server

BODY = {"kind": "inspect", "model": "hf:org/name"}


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[tuple[Running, KeyFile, str]]:
    """A server with one full key, the key file and the key."""
    keys = KeyFile(tmp_path / "keys.json")
    text, _ = keys.create("first")
    with running_server(tmp_path) as server:
        yield server, keys, text


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_without_a_key_everything_but_probes_and_page_is_401(closed: tuple[Running, KeyFile, str]) -> None:
    server, _, _ = closed
    for path in (
        "/v1/jobs",
        "/v1/jobs/x",
        "/v1/plans/x",
        "/v1/sensitivities/x",
        "/v1/solvers",
        "/metrics",
        "/v1/jobs/x/events",
    ):
        answer = server.http.get(path)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/jobs", "/v1/solve", "/v1/plans:verify", "/v1/jobs/x:cancel"):
        assert_problem(server.http.post(path, json=BODY), 401, "unauthorized")
    for path in ("/", "/livez", "/readyz", "/startupz", "/openapi.json", "/assets/app.js"):
        assert server.http.get(path).status_code == 200


@pytest.mark.parametrize("text", ["x", "bw_", "bw_a_b", "Bearer", "bw_" + "0" * 12 + "_" + "0" * 64])
def test_wrong_keys_are_401(closed: tuple[Running, KeyFile, str], text: str) -> None:
    server, _, good = closed
    assert_problem(server.http.get("/v1/jobs", headers=bearer(text)), 401, "unauthorized")
    assert_problem(
        server.http.get("/v1/jobs", headers=bearer(good[:-1] + ("0" if good[-1] != "0" else "1"))), 401, "unauthorized"
    )


def test_scopes_bind(closed: tuple[Running, KeyFile, str]) -> None:
    server, keys, _ = closed
    reader, _ = keys.create("reader", ["jobs:read"])
    solver, _ = keys.create("solver", ["solve"])
    assert server.http.get("/v1/jobs", headers=bearer(reader)).status_code == 200
    assert_problem(server.http.post("/v1/jobs", json=BODY, headers=bearer(reader)), 403, "forbidden")
    assert_problem(server.http.get("/metrics", headers=bearer(reader)), 403, "forbidden")
    assert server.http.post("/v1/solve", json=EXAMPLES["solve"], headers=bearer(solver)).status_code == 200
    assert_problem(server.http.get("/v1/jobs", headers=bearer(solver)), 403, "forbidden")


def test_writing_checkpoints_needs_a_scope_of_its_own(closed: tuple[Running, KeyFile, str]) -> None:
    server, keys, full = closed
    planner, _ = keys.create("planner", ["jobs:read", "jobs:write"])
    body = {"kind": "plan", "model": "hf:org/name", "budget": "4bpw"}
    batch = {"models": ["hf:org/name"], "budgets": ["4bpw"], "job": {"to": "packed"}}
    for members, status in (({}, 202), ({"to": "packed"}, 403)):
        assert server.http.post("/v1/jobs", json={**body, **members}, headers=bearer(planner)).status_code == status
    assert_problem(server.http.post("/v1/batches", json=batch, headers=bearer(planner)), 403, "forbidden")
    assert server.http.post("/v1/jobs", json={**body, "to": "packed"}, headers=bearer(full)).status_code == 202
    assert server.http.post("/v1/batches", json=batch, headers=bearer(full)).status_code == 202
    assert len(server.http.get("/v1/jobs", headers=bearer(planner)).json()["jobs"]) == 3


def test_rotation_expiry_and_revocation_take_effect_at_once(closed: tuple[Running, KeyFile, str]) -> None:
    server, keys, old = closed
    new, _ = keys.create("first")
    brief, _ = keys.create("brief", days=1e-9)
    for text in (old, new):
        assert server.http.get("/v1/jobs", headers=bearer(text)).status_code == 200
    time.sleep(0.01)
    assert_problem(server.http.get("/v1/jobs", headers=bearer(brief)), 401, "unauthorized")
    keys.revoke(keys.all()[0].id)
    assert_problem(server.http.get("/v1/jobs", headers=bearer(old)), 401, "unauthorized")
    assert server.http.get("/v1/jobs", headers=bearer(new)).status_code == 200


def test_a_key_revoked_during_a_wait_or_a_stream_learns_nothing_more(closed: tuple[Running, KeyFile, str]) -> None:
    server, keys, _ = closed
    text, key = keys.create("brief")
    job = server.http.post("/v1/jobs", json=BODY, headers=bearer(text)).json()
    claim = server.claim(job["id"])
    waited: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: waited.append(
            server.http.get(
                f"/v1/jobs/{job['id']}?wait=30", headers={**bearer(text), "If-None-Match": f'"{claim.version}"'}
            )
        )
    )
    with httpx.stream("GET", f"{server.url}/v1/jobs/{job['id']}/events", headers=bearer(text), timeout=30) as stream:
        lines = stream.iter_lines()
        while "event: started" not in next(lines):
            pass
        asking.start()
        while server.state.quotas.open_now("waiting requests", "default") == 0:
            time.sleep(0.01)
        keys.revoke(key.id)
        server.store.succeed(claim.id, claim.attempt, {"secret": "result"})
        told = "\n".join(lines)
    asking.join()
    assert "event: error" in told
    assert "unauthorized" in told
    assert "event: succeeded" not in told
    assert_problem(waited[0], 401, "unauthorized")


def test_tenants_do_not_see_each_other(closed: tuple[Running, KeyFile, str]) -> None:
    server, keys, _ = closed
    ann, bob = (keys.create(name, tenant=name)[0] for name in ("ann", "bob"))
    headers = {**bearer(ann), "Idempotency-Key": "same"}
    job = server.http.post("/v1/jobs", json=BODY, headers=headers).json()["id"]
    other = server.http.post("/v1/jobs", json={**BODY, "seed": 1}, headers={**bearer(bob), "Idempotency-Key": "same"})
    assert other.status_code == 202
    for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/result"), ("POST", ":cancel")):
        assert_problem(server.http.request(method, f"/v1/jobs/{job}{path}", headers=bearer(bob)), 404, "not-found")
    assert job not in [found["id"] for found in server.http.get("/v1/jobs", headers=bearer(bob)).json()["jobs"]]
    assert server.http.get(f"/v1/jobs/{job}", headers=bearer(ann)).status_code == 200
    for _ in range(2):
        server.http.post("/v1/jobs", json=BODY, headers=bearer(ann))
    token = server.http.get("/v1/jobs?page_size=1", headers=bearer(ann)).json()["next_page_token"]
    assert_problem(server.http.get("/v1/jobs", params={"page_token": token}, headers=bearer(bob)), 422, "invalid-input")


def test_client_sends_its_key(closed: tuple[Running, KeyFile, str]) -> None:
    server, keys, text = closed
    with Client(server.url, key=text) as client:
        assert client.submit(BODY)["state"] == "queued"
    with Client(server.url) as client, pytest.raises(Unauthorized):
        client.submit(BODY)
    with Client(server.url, key=keys.create("r", ["jobs:read"])[0]) as client, pytest.raises(Forbidden):
        client.submit(BODY)


def test_key_file_holds_no_key_and_is_private(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    text, key = keys.create("name")
    content = keys.path.read_text()
    assert text not in content
    assert text.rpartition("_")[2] not in content
    assert keys.path.stat().st_mode & 0o077 == 0
    assert keys.find(text) == key
    assert keys.find(text[:-1] + ("0" if text[-1] != "0" else "1")) is None
    for scopes in ([], ["all"]):
        with pytest.raises(InvalidInput):
            keys.create("x", scopes)
    with pytest.raises(NotFound):
        keys.revoke("nothing")
    keys.path.write_text("{")
    with pytest.raises(InvalidSetting):
        KeyFile(keys.path).all()


def test_keys_made_at_once_are_all_there(tmp_path: Path) -> None:
    """Once who wrote last undid what the others had made or revoked."""
    code = (
        "import sys; from service.keys import KeyFile; from pathlib import Path; KeyFile(Path(sys.argv[1])).create('k')"
    )
    path = tmp_path / "state" / "keys.json"
    making = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(6)]
    assert [process.wait(60) for process in making] == [0] * 6
    assert len(KeyFile(path).all()) == 6


def test_open_address_without_a_key_is_refused_and_with_one_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="API key"):
        Server(Settings(state_dir=tmp_path), host="0.0.0.0", port=0)
    with running_server(tmp_path, api_key="a-single-long-key") as server:
        assert_problem(server.http.get("/v1/jobs"), 401, "unauthorized")
        assert server.http.get("/v1/jobs", headers=bearer("a-single-long-key")).status_code == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("evil.example", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_web_pages_cannot_use_a_local_server(api: Running) -> None:
    rebound = api.http.get("/v1/jobs", headers={"Host": "evil.example:80"})
    assert_problem(rebound, 403, "forbidden")
    for site in ("cross-site", "same-site"):
        assert_problem(api.http.post("/v1/jobs", json=BODY, headers={"Sec-Fetch-Site": site}), 403, "forbidden")
    assert api.http.post("/v1/jobs", json=BODY, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 202
    preflight = httpx.options(
        f"{api.url}/v1/jobs", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers


def test_keys_at_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BITWRIGHT_STATE_DIR", str(tmp_path))
    assert main(["create", "pipeline", "--scopes", "jobs:read,solve", "--days", "30"]) == 0
    text = capsys.readouterr().out.strip()
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "pipeline" in listed
    assert text not in listed
    assert main(["revoke", listed.split()[0]]) == 0
    assert main(["revoke", "nothing"]) == 2
    assert main(["create", "x", "--scopes", "root"]) == 2
    assert SCOPES[0] in capsys.readouterr().err
