"""The start commands of docker/compose.yaml, run without containers on real servers: a job from end to end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.chaos.fleet import wait_for
from tests.servers import free_port, postgresql_server, redis_server
from tests.worker.test_images import OURS, ROOT

KEY = "a-key-for-the-tests"


def environment(name: str, state: Path, port: int, urls: dict[str, str]) -> dict[str, str]:
    """What compose sets, with this host's servers and folders in the place of its own."""
    given = {key: str(value) for key, value in OURS[name]["environment"].items()}
    own = {
        **urls, "BITWRIGHT_MODEL_ROOTS": f"models={ROOT / 'tests' / 'models'}", "BITWRIGHT_STATE_DIR": str(state),
        "BITWRIGHT_PORT": str(port), "BITWRIGHT_ALIVE_FILE": str(state / "alive"), "BITWRIGHT_API_KEY": KEY,
    }  # fmt: skip
    assert set(given) <= {*own, "BITWRIGHT_JSON_LOGS"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, **given, **own, "PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.mark.timeout(200)
def test_the_commands_of_compose_do_a_job_and_stop_when_told(tmp_path: Path) -> None:
    with ExitStack() as stack:
        database, broker = stack.enter_context(postgresql_server()), stack.enter_context(redis_server())
        if database is None or broker is None:
            pytest.skip("no PostgreSQL or no Redis on this host (install Debian's `postgresql redis-server`)")
        urls, port = {"BITWRIGHT_DATABASE_URL": database.url, "BITWRIGHT_BROKER_URL": broker.url}, free_port()
        processes = {}
        for name in ("api", "worker-cpu", "worker-gpu"):
            words = [re.sub(r"^0\.0\.0\.0$", "127.0.0.1", word) for word in OURS[name]["command"]]
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            processes[name] = subprocess.Popen(
                words, env=environment(name, tmp_path, port, urls), cwd=tmp_path, stdout=log, stderr=log
            )
            stack.callback(processes[name].kill)
        http = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        )
        wait_for(lambda: _ready(http), 90, "the API did not start")
        assert httpx.get(f"http://127.0.0.1:{port}/v1/jobs").status_code == 401
        for queue in ("cpu", "gpu"):
            body = {"kind": "inspect", "model": "file:models/llama-stdlib", "queue": queue}
            job = http.post("/v1/jobs", json=body, headers={"Prefer": "wait=60", "Cache-Control": "no-cache"}).json()
            assert job["state"] == "succeeded", job
        assert (tmp_path / "alive").exists()
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for name, process in processes.items():
            assert process.wait(30) in (0, -signal.SIGTERM), name


def _ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
