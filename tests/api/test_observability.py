"""Traces from the request to the child, logs that name job and trace and hold no secret, metrics of the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tests.api.running import running_server
from tests.chaos.fleet import wait_for
from tests.worker.conftest import FAKE_STEPS, fast_settings, request_for
from worker.embedded import embedded_worker

ROOT = Path(__file__).resolve().parents[2]
CALLER = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


class Collector(HTTPServer):
    """An OTLP/HTTP receiver: keeps the spans it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans: list[dict[str, object]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def named(self, start: str) -> list[dict[str, object]]:
        return [span for span in self.spans if str(span["name"]).startswith(start)]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/v1/traces"
        self.server.spans += body["resourceSpans"][0]["scopeSpans"][0]["spans"]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.shutdown()
    server.server_close()


def test_one_trace_from_the_callers_request_to_the_child(tmp_path: Path, collector: Collector) -> None:
    settings = fast_settings(tmp_path, otlp_endpoint=f"http://127.0.0.1:{collector.server_port}")
    values = settings.model_dump(exclude={"state_dir", "host", "port"})
    with running_server(tmp_path, **values) as api, embedded_worker(settings, slots=1, steps=FAKE_STEPS):
        job = api.http.post("/v1/jobs", json=request_for("answer"), headers={"traceparent": CALLER}).json()
        wait_for(lambda: api.store.get(job["id"]).done, 60, "the job did not end")
        wait_for(lambda: collector.named("child") and collector.named("POST"), 30, "spans did not arrive")
    (request,), (attempt,), (child,) = (collector.named(name) for name in ("POST", "attempt", "child"))
    assert {span["traceId"] for span in (request, attempt, child)} == {"ab" * 16}
    assert request["parentSpanId"] == "cd" * 8
    assert attempt["parentSpanId"] == request["spanId"]
    assert child["parentSpanId"] == attempt["spanId"]
    assert request["name"] == "POST /v1/jobs"
    assert int(str(child["startTimeUnixNano"])) < int(str(child["endTimeUnixNano"]))


def test_parts_of_a_job_belong_to_its_trace(tmp_path: Path, collector: Collector) -> None:
    """Whoever does a part, and however often the job comes back: one trace, each child below its own attempt."""
    settings = fast_settings(tmp_path, otlp_endpoint=f"http://127.0.0.1:{collector.server_port}", shards=3)
    values = settings.model_dump(exclude={"state_dir", "host", "port"})
    with running_server(tmp_path, **values) as api, embedded_worker(settings, slots=2, steps=FAKE_STEPS):
        job = api.http.post("/v1/jobs", json=request_for("spread/3"), headers={"traceparent": CALLER}).json()
        wait_for(lambda: api.store.get(job["id"]).done, 60, "the job did not end")
        wait_for(lambda: len(collector.named("child")) == len(collector.named("attempt")) == 5, 30, "spans are missing")
    attempts, children = collector.named("attempt"), collector.named("child")
    assert [span["name"] for span in attempts].count("attempt step") == 3
    assert {span["traceId"] for span in (*attempts, *children)} == {"ab" * 16}
    assert {child["parentSpanId"] for child in children} == {attempt["spanId"] for attempt in attempts}
    (request,) = collector.named("POST")
    assert {attempt["parentSpanId"] for attempt in attempts} == {request["spanId"]}


def test_a_collector_that_is_away_costs_nothing(tmp_path: Path) -> None:
    with running_server(tmp_path, otlp_endpoint="http://127.0.0.1:9") as api:
        assert api.submit()["state"] == "queued"


def test_json_logs_name_job_and_trace_and_hold_no_key(tmp_path: Path) -> None:
    key = "secret-key-" + "s" * 24
    environment = {
        **os.environ, "BITWRIGHT_JSON_LOGS": "true", "BITWRIGHT_API_KEY": key, "BITWRIGHT_STATE_DIR": str(tmp_path),
        "BITWRIGHT_POLL_SECONDS": "0.05",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "bitwright", "serve", "--port", "0", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    headers = {"Authorization": f"Bearer {key}", "traceparent": CALLER}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
        job = http.post("/v1/jobs", json={"kind": "inspect", "model": "file:none/x"}).json()
        wait_for(lambda: http.get(f"/v1/jobs/{job['id']}").json()["done"], 60, "the job did not end")
        assert httpx.get(f"{url}/v1/jobs", headers={"Authorization": "Bearer wrong-token"}).status_code == 401
    process.terminate()
    _, logged = process.communicate(timeout=60)
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    assert key not in logged
    assert "wrong-token" not in logged
    about = [line for line in lines if line.get("job_id") == job["id"]]
    assert any("started" in line["message"] for line in about)
    assert {line["trace_id"] for line in about} == {"ab" * 16}
    asked = [line for line in lines if line["logger"] == "bitwright.access"]
    assert any(line["message"].startswith("POST /v1/jobs 202") and line["request_id"] for line in asked)
    assert not any(job["id"] in line["message"] for line in asked), "routes, not paths"


def test_metrics_are_read_from_the_table(tmp_path: Path) -> None:
    with running_server(tmp_path) as api:
        for number in range(3):
            job = api.claim(api.submit()["id"])
            measures = {"peak_memory": 1000 + number, "gap": 0.25 * number}
            api.store.succeed(job.id, job.attempt, {}, measures)
        api.submit(queue="gpu")
        problem = {"loss": [[1.0, 0.5]], "cost_bytes": [[1, 2]], "limit_bytes": 2}
        api.http.post("/v1/solve", json={"problem": problem})
        lines = dict(
            line.rsplit(" ", 1) for line in api.http.get("/metrics").text.splitlines() if not line.startswith("#")
        )
    assert float(lines['bitwright_queue_depth{queue="gpu"}']) == 1
    assert float(lines['bitwright_queue_oldest_seconds{queue="gpu"}']) > 0
    assert float(lines['bitwright_queue_oldest_seconds{queue="cpu"}']) == 0, "told for every queue, also an empty one"
    assert float(lines['bitwright_jobs_ended_last_hour{kind="inspect",state="succeeded"}']) == 3
    assert float(lines['bitwright_child_peak_memory_bytes{kind="inspect"}']) == 1002
    assert float(lines['bitwright_plan_gap_max{kind="inspect"}']) == 0.5
    assert float(lines["bitwright_cache_hits_last_hour"]) == 0
    assert float(lines['bitwright_job_run_seconds{kind="inspect",quantile="0.99"}']) >= 0
    assert float(lines['bitwright_solves_total{status="optimal"}']) == 1
    assert float(lines['bitwright_http_requests_total{method="POST",route="/v1/jobs",status="202"}']) == 4
