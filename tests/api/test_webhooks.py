"""Webhooks from a real worker to a real receiver on this host: signed, retried, resent, never to a place inside."""

from __future__ import annotations

import base64
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpcore
import pytest

from bitwright.core.callbacks import check_callback, is_public
from bitwright.core.errors import InvalidInput
from bitwright.jobs.deliveries import LADDER
from bitwright.jobs.signing import Signer
from bitwright.jobs.store import open_store
from bitwright.settings import Settings
from tests.api.running import Running, assert_problem, running_server
from worker import egress
from worker.webhooks import Sender, asked_seconds, send_until


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses of `plan`, then 204; keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.plan: list[tuple[int, dict[str, str]]] = []
        self.pause = 0.0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(({key.lower(): value for key, value in self.headers.items()}, body))
        time.sleep(self.server.pause)
        status, headers = self.server.plan.pop(0) if self.server.plan else (204, {})
        with suppress(BrokenPipeError):  # the sender did not wait for the answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def api(tmp_path: Path, receiver: Receiver) -> Iterator[Running]:
    with running_server(tmp_path, webhook_internal=(receiver.address,), webhook_poll_seconds=0.05) as server:
        yield server


@pytest.fixture
def sending(api: Running) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=send_until, args=(stop, api.store, api.settings))
    thread.start()
    yield
    stop.set()
    thread.join()


def finish(api: Running, url: str) -> str:
    job = api.claim(api.submit(callback=url)["id"])
    api.store.succeed(job.id, job.attempt, {})
    return job.id


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """What a receiver does (standard-webhooks specification, "Verifying webhook authenticity")."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return expected in headers["webhook-signature"].split(" ")


def test_the_end_of_a_job_is_told_signed_and_thin(api: Running, receiver: Receiver, sending: None) -> None:
    job_id = finish(api, f"http://{receiver.address}/hook")
    wait_for(lambda: receiver.seen)
    headers, body = receiver.seen[0]
    (secret,) = api.http.post("/v1/webhooks:secrets").json()["secrets"]
    assert verify(secret, headers, body)
    assert not verify(secret, headers, body + b" ")
    event = json.loads(body)
    assert (event["type"], event["data"]["job_id"], event["data"]["state"]) == ("job.succeeded", job_id, "succeeded")
    assert len(body) < 1024
    wait_for(lambda: api.http.get(f"/v1/webhooks?job={job_id}").json()["webhooks"][0]["state"] == "delivered")
    (found,) = api.http.get(f"/v1/webhooks?job={job_id}").json()["webhooks"]
    assert found["id"] == headers["webhook-id"]
    again = api.http.post(f"/v1/webhooks/{found['id']}:resend")
    assert (again.status_code, again.json()["state"]) == (200, "pending")
    wait_for(lambda: len(receiver.seen) == 2)
    assert receiver.seen[1][0]["webhook-id"] == found["id"]
    assert receiver.seen[1][1] == body


def test_secrets_rotate_without_a_gap_and_belong_to_tenants(api: Running, receiver: Receiver) -> None:
    (old,) = api.http.post("/v1/webhooks:secrets").json()["secrets"]
    path = api.settings.state_dir / "webhooks.key"
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("n" * 64 + "\n" + path.read_text())
    new, still = api.http.post("/v1/webhooks:secrets").json()["secrets"]
    assert (still, len(base64.b64decode(new.removeprefix("whsec_")))) == (old, 32)
    finish(api, f"http://{receiver.address}/hook")
    sender = Sender(api.store, api.settings)
    for found in api.store.take_deliveries():
        sender.send(found)
    sender.close()
    headers, body = receiver.seen[0]
    assert verify(new, headers, body)
    assert verify(old, headers, body)
    assert sender._signer.secrets_of("another")[0] != new


@pytest.mark.parametrize(
    ("answer", "state", "error"),
    [
        ((500, {}), "pending", "500"),
        ((302, {"Location": "http://169.254.169.254/"}), "pending", "302"),
        ((410, {}), "disabled", "410"),
        ((503, {"Retry-After": "900"}), "pending", "503"),
    ],
)
def test_what_the_receiver_answers_decides(api: Running, receiver: Receiver, answer, state, error) -> None:
    receiver.plan.append(answer)
    job_id = finish(api, f"http://{receiver.address}/hook")
    sender = Sender(api.store, api.settings)
    (found,) = api.store.take_deliveries()
    after = sender.send(found)
    sender.close()
    assert (after.state, len(receiver.seen)) == (state, 1), "a redirect is never followed"
    assert error in str(after.error)
    assert "body" not in str(api.http.get(f"/v1/webhooks?job={job_id}").json())
    if "Retry-After" in answer[1]:
        assert after.due - time.time() > 800


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("900", 900), ("Wed, 21 Oct 2015 07:43:00 GMT", 900), ("Wed, 21 Oct 2015 07:00:00 GMT", 0), ("", 0), ("soon", 0),
     ("-5", 0), ("9" * 400, 86_400), ("Wed, 21 Oct 9999 07:28:00 GMT", 86_400), ("١٢", 0)],
)  # fmt: skip
def test_a_pause_is_asked_for_in_seconds_or_as_a_date(text: str, seconds: float) -> None:
    assert asked_seconds(text, 1445412480.0) == seconds  # Wed, 21 Oct 2015 07:28:00 GMT


def test_a_receiver_that_does_not_answer_in_time_is_asked_again(api: Running, receiver: Receiver) -> None:
    for seconds, limit, state, error in ((0.6, 20.0, "delivered", None), (1.0, 0.5, "pending", "Timeout")):
        receiver.pause = seconds
        finish(api, f"http://{receiver.address}/hook")
        sender = Sender(api.store, api.settings.model_copy(update={"webhook_seconds": limit}))
        (found,) = api.store.take_deliveries()
        after = sender.send(found)
        sender.close()
        assert after.state == state
        assert error is None or error in str(after.error)


def test_a_receiver_that_fails_for_three_days_gets_it_at_the_last_try(tmp_path: Path, receiver: Receiver) -> None:
    """The whole ladder through the real sender, on a clock of its own; a secret is rotated on the way."""
    now = [1_800_000_000.0]
    store = open_store(f"sqlite:///{tmp_path}/jobs.db", clock=lambda: now[0])
    settings = Settings(state_dir=tmp_path, webhook_internal=(receiver.address,))
    receiver.plan += [(500, {}), (429, {}), (503, {"Retry-After": "60"}), *[(502, {})] * (len(LADDER) - 3)]
    store.create({"kind": "inspect", "model": "m"}, callback=f"http://{receiver.address}/hook")
    job = store.claim("w")
    store.succeed(job.id, job.attempt, {})
    old = Signer(tmp_path).secrets_of("default")
    sent = []
    for number in range(len(LADDER) + 1):
        if number == 4:
            (tmp_path / "webhooks.key").write_text("n" * 64 + "\n" + (tmp_path / "webhooks.key").read_text())
        sender = Sender(store, settings)  # after a restart, as over three days
        (found,) = store.take_deliveries()
        sent.append(now[0])
        after = sender.send(found)
        sender.close()
        now[0] = max(now[0], after.due)
    assert (after.state, after.tries) == ("delivered", len(LADDER) + 1)
    assert sent[-1] - sent[0] >= 75 * 3600
    assert all(later - earlier >= pause for earlier, later, pause in zip(sent, sent[1:], LADDER, strict=False))
    assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 1, "the receiver's idempotency key"
    new, kept = Signer(tmp_path).secrets_of("default")
    assert old == [kept]
    for number, (headers, body) in enumerate(receiver.seen):
        assert verify(kept, headers, body)
        assert verify(new, headers, body) == (number >= 4)
    store.close()


def test_a_receiver_that_is_away_gets_it_later(api: Running) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    changed = api.settings.model_copy(update={"webhook_internal": (address,)})
    api.store.create({"kind": "inspect", "model": "m"}, callback=f"http://{address}/")
    job = api.store.claim("w")
    api.store.succeed(job.id, job.attempt, {})
    sender = Sender(api.store, changed)
    (found,) = api.store.take_deliveries()
    after = sender.send(found)
    sender.close()
    assert (after.state, after.tries, after.status) == ("pending", 1, None)


HOSTILE = [
    "http://example.com/", "https://example.com:8443/", "https://127.0.0.1/", "https://[::1]/", "https://2130706433/",
    "https://0x7f000001/", "https://017700000001/", "https://localhost/", "https://a.localhost/", "https://printer.local/",
    "https://metadata.google.internal/", "https://user:pass@example.com/", "https://example.com\\@127.0.0.1/", "ftp://a.b/",
    "https:///x", "https://a b.example/", "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest", "https://intranet/",
    "https://example.com:99999/", "file:///etc/passwd", "https://127.1/", "https://1.2.3.4.0x5/",
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_addresses_that_lead_inside_are_refused_with_the_job(api: Running, url: str) -> None:
    with pytest.raises(InvalidInput):
        check_callback(url, ())
    assert_problem(
        api.http.post("/v1/jobs", json={"kind": "inspect", "model": "hf:a/b", "callback": url}), 422, "invalid-input"
    )


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "192.168.1.1", "172.16.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1",
     "ff02::1"],
)  # fmt: skip
def test_inner_addresses_are_told_from_public_ones(address: str) -> None:
    assert not is_public(address)
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")


def test_a_name_that_turns_inward_is_refused_when_the_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: fine when the job was accepted, the metadata server when it ends. One inner address is enough."""
    check_callback("https://rebind.example/", ())
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 443)) for a in ("93.184.216.34", "169.254.169.254")]
    monkeypatch.setattr(egress.socket, "getaddrinfo", lambda *_, **__: rows)
    with egress.client((), seconds=2) as http, pytest.raises(egress.httpx.ConnectError, match="not public"):
        http.post("https://rebind.example/")


def test_the_socket_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers = iter(["93.184.216.34", "10.0.0.1"])

    def resolve(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(self, host, port, *_, **__):
        asked.append(host)
        raise httpcore.ConnectError("stop here")

    monkeypatch.setattr(egress.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    with egress.client((), seconds=2) as http, pytest.raises(egress.httpx.ConnectError):
        http.post("https://rebind.example/")
    assert asked == ["93.184.216.34"]
