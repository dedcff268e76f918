"""Jobs cut into many parts, with workers killed at random: each passes its barrier once and every part is there."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from tests.chaos.fleet import children, faults_of_history, fleet, quick_settings
from tests.chaos.sizes import SEED, reproduce, size

JOBS, PARTS = size(50, 4), size(200, 10)
KILLS = size(100, 3)
STEPS = "tests.chaos.parts:run"


@pytest.mark.timeout(3600)
def test_the_barrier_is_passed_once_by_each_job(database_url, tmp_path):
    chance = random.Random(SEED)
    settings = quick_settings(tmp_path, database_url, shards=PARTS)
    with fleet(settings, 2, steps=STEPS, slots=2) as found:
        ids = [found.store.create({"kind": "inspect", "model": str(PARTS)}).job.id for _ in range(JOBS)]
        kills, end, pace = 0, time.monotonic() + 3000, JOBS * PARTS / (KILLS + 1)
        while found.left and time.monotonic() < end:
            done = len(list((tmp_path / "parts").iterdir())) if (tmp_path / "parts").exists() else 0
            if kills < KILLS and done >= pace * kills:
                process = chance.choice(found.workers)
                if chance.random() < 0.5 and (pids := children(process)):
                    with suppress(ProcessLookupError):
                        os.kill(chance.choice(pids), signal.SIGKILL)
                else:
                    found.kill(process)
                    found.start()
                kills += 1
            time.sleep(0.05)
        how = f"{kills} kills; {reproduce('tests/chaos/test_barrier_kills.py')}"
        print(how)
        for job_id in ids:
            job, events = found.store.get(job_id), found.store.events_after(job_id)
            assert (job.state, job.result) == ("succeeded", {"parts": PARTS}), how
            assert [event.type for event in events].count("barrier") == 1, how
            assert faults_of_history(found.store, job_id) == [], how
