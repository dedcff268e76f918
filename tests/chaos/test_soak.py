"""Many small jobs through one worker process and one server: memory and open files stay as they were."""

from __future__ import annotations

import gc
import threading

import psutil
import pytest

from bitwright.jobs.create import NewJob
from bitwright.jobs.store import open_store
from tests.api.running import running_server
from tests.chaos.fleet import fleet, quick_settings, wait_for
from tests.chaos.sizes import size
from tests.worker.conftest import FAKE_STEPS

JOBS = size(10_000, 80)
#: Jobs before memory counts: imports, caches and pools are filled by then.
WARM = JOBS // 5


@pytest.mark.timeout(2400)
def test_the_worker_neither_grows_nor_leaks_descriptors(tmp_path):
    settings = quick_settings(tmp_path, None)
    with fleet(settings, 1, steps=FAKE_STEPS, slots=2) as found:
        process = psutil.Process(found.workers[0].pid)

        def work(count: int) -> tuple[int, int]:
            found.store.create_many([NewJob({"kind": "inspect", "model": "file:do/answer"}) for _ in range(count)])
            wait_for(lambda: found.left == 0, 60 + count, "the jobs did not end")
            return process.memory_info().rss, process.num_fds()

        before, files = work(WARM)
        after, files_after = work(JOBS - WARM)
    print(f"worker: {before / 2**20:.1f} to {after / 2**20:.1f} MiB, {files} to {files_after} descriptors")
    assert after <= 1.05 * before
    assert files_after <= files + 2


@pytest.mark.timeout(1200)
def test_the_server_neither_grows_nor_leaks_descriptors(tmp_path):
    """Created, read, watched and cancelled over HTTP; ended by hand."""
    with running_server(tmp_path, tenant_queued_jobs=100_000) as api:
        store = open_store(api.settings.resolved_database_url)
        process = psutil.Process()

        def work(count: int) -> tuple[int, int, int]:
            for number in range(count):
                job = api.http.post("/v1/jobs", json={"kind": "inspect", "model": f"hf:a/b{number}"}).json()
                claimed = store.claim("soak")
                store.succeed(claimed.id, claimed.attempt, {})
                assert api.http.get(f"/v1/jobs/{job['id']}").json()["done"]
                assert "succeeded" in api.http.get(f"/v1/jobs/{job['id']}/events").text
            gc.collect()
            return process.memory_info().rss, process.num_fds(), threading.active_count()

        before, files, threads = work(WARM)
        after, files_after, threads_after = work(JOBS - WARM)
        store.close()
    print(f"server: {before / 2**20:.1f} to {after / 2**20:.1f} MiB, {files} to {files_after} descriptors")
    assert after <= 1.05 * before
    assert files_after <= files + 4
    assert threads_after <= threads + 4
