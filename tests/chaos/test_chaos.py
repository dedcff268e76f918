"""Workers killed and stopped at random; `make chaos` sets the size. A failure names its seed (`tests.chaos.driver`)."""

from __future__ import annotations

import pytest

from tests.chaos.driver import Chaos
from tests.chaos.sizes import SEED, reproduce, size

JOBS, KILLS = size(1000, 60), size(100, 8)
STOP_JOBS, STOPS = size(400, 20), size(50, 3)
#: Only a fault takes this long.
SECONDS = 120 + JOBS


def survive(database_url, folder, jobs, kills, stops, test) -> Chaos:
    chaos = Chaos(database_url, folder, SEED)
    try:
        report = chaos.run(jobs, kills, SECONDS, stops=stops)
    finally:
        chaos.close()
    print(report)
    assert not report.faults, f"{report}\n{report.faults[:10]}\n{reproduce(f'tests/chaos/test_chaos.py -k {test}')}"
    return chaos


@pytest.mark.timeout(SECONDS + 60)
def test_killed_workers_lose_no_job_and_do_none_twice(database_url, tmp_path):
    report = survive(database_url, tmp_path, JOBS, KILLS, 0, "killed_workers").report
    assert report.kills == KILLS


@pytest.mark.timeout(SECONDS + 60)
def test_stopped_workers_that_wake_after_their_lease_change_nothing(database_url, tmp_path):
    report = survive(database_url, tmp_path, STOP_JOBS, 0, STOPS, "stopped_workers").report
    assert report.stops == STOPS
    assert report.stale > 0, "no zombie tried to write: the test tested nothing"
