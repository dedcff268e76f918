"""A process stopped inside a write transaction of SQLite: who reads is served, who writes is told to come again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from bitwright.core.errors import Temporary
from tests.api.running import assert_problem, running_server

BUSY = 0.4
THREADS = 16
#: Stopped, by itself here, where it has written and not yet committed.
HOLDER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE jobs SET message = 'half'")
os.kill(os.getpid(), signal.SIGSTOP)
connection.execute("ROLLBACK")
"""


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_nobody_hangs_and_all_is_well_when_the_process_goes_on_or_is_gone(tmp_path, end):
    with running_server(tmp_path, busy_seconds=BUSY) as server:
        waiting = server.submit()

        def post(_: object = None) -> httpx.Response:
            body = {"kind": "inspect", "model": "file:models/one"}
            return server.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": '"one"'})

        with subprocess.Popen([sys.executable, "-c", HOLDER, str(server.store.database.url.database)]) as holder:
            while psutil.Process(holder.pid).status() != psutil.STATUS_STOPPED:
                assert holder.poll() is None
                time.sleep(0.01)
            with ThreadPoolExecutor(THREADS) as pool:
                answers = list(pool.map(post, range(THREADS)))
            answers.append(server.http.post(f"/v1/jobs/{waiting['id']}:cancel"))
            for answer in answers:
                assert_problem(answer, 503, "temporary")
                assert int(answer.headers["retry-after"]) >= 1
            with pytest.raises(Temporary):
                server.store.claim("a worker")
            for address in ("/livez", "/readyz", "/v1/jobs", f"/v1/jobs/{waiting['id']}"):
                assert server.http.get(address).status_code == 200, address
            holder.send_signal(end)
            holder.wait(60)
        assert post().status_code == 202
        assert {job["state"] for job in server.http.get("/v1/jobs").json()["jobs"]} == {"queued"}
        assert server.http.get(f"/v1/jobs/{waiting['id']}").json()["progress"]["message"] == ""
