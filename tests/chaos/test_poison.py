"""Jobs that kill, eat or hang their process: three tries, a typed reason, and the neighbours do not notice."""

from __future__ import annotations

import time

import pytest

from tests.chaos.fleet import faults_of_history, fleet, quick_settings, wait_for
from tests.chaos.sizes import size, within
from tests.worker.conftest import FAKE_STEPS, request_for

NEIGHBOURS = size(200, 10)
#: What it does, and the type of problem it must end with.
POISON = {
    "exit/3": "worker-lost",
    "crash/11": "worker-lost",
    "memory": "out-of-resources",
    "grow/2000": "out-of-resources",
    "hang": "out-of-resources",
}


@pytest.mark.timeout(600)
def test_poison_ends_typed_after_three_tries_beside_unharmed_neighbours(database_url, tmp_path):
    settings = quick_settings(
        tmp_path, database_url, max_attempts=3, job_seconds=6.0, job_resident_bytes=300 * 2**20, lease_seconds=10.0
    )
    with fleet(settings, 1, steps=FAKE_STEPS, slots=4) as found:
        poison = {work: found.store.create(request_for(work)).job.id for work in POISON}
        neighbours = [found.store.create(request_for("answer")).job.id for _ in range(NEIGHBOURS)]
        wait_for(lambda: found.left == 0, 300, "poison never ended")
        assert all(found.store.get(one).state == "succeeded" and found.store.get(one).tries == 0 for one in neighbours)
        for work, kind in POISON.items():
            job = found.store.get(poison[work])
            assert (job.state, job.attempt, job.error["attempts"]) == ("failed", 3, 3), work
            assert job.error["type"].endswith(kind), (work, job.error)
            assert faults_of_history(found.store, job.id) == []
        hung = found.store.events_after(poison["hang"])
        starts = [event.at for event in hung if event.type == "started"]
        ends = [event.at for event in hung if event.type in ("requeued", "failed")]
        over = [end - start - settings.job_seconds for start, end in zip(starts, ends, strict=True)]
        print(f"hung jobs killed {max(over):.1f} s past their limit at most, by {time.strftime('%H:%M')}")
        assert max(over) <= within(5.0)
