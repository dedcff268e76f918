"""The short form of the chaos run; `make chaos` sets the size. A failure names its seed: see `tests.chaos.driver`."""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos.driver import Chaos
from tests.servers import postgresql_server

JOBS = int(os.environ.get("BITWRIGHT_TEST_CHAOS_JOBS", "100"))
KILLS = int(os.environ.get("BITWRIGHT_TEST_CHAOS_KILLS", "10"))
SEED = int(os.environ.get("BITWRIGHT_TEST_CHAOS_SEED", str(random.randrange(2**31))))
#: Only a fault takes this long.
SECONDS = 60 + JOBS


def survive(url: str | None, folder) -> None:
    chaos = Chaos(url, folder, SEED)
    try:
        report = chaos.run(JOBS, KILLS, SECONDS)
    finally:
        chaos.close()
    print(report)
    command = f"python -m tests.chaos.driver --jobs {JOBS} --kills {KILLS} --seed {SEED}"
    assert not report.faults, f"{report}\n{report.faults[:10]}\nreproduce: {command}"


@pytest.mark.timeout(SECONDS + 60)
def test_no_job_is_lost_or_done_twice_on_sqlite(tmp_path):
    survive(None, tmp_path)


@pytest.mark.timeout(SECONDS + 60)
def test_no_job_is_lost_or_done_twice_on_postgresql(tmp_path):
    with postgresql_server() as server:
        if server is None:
            pytest.skip("no PostgreSQL on this host (install Debian's `postgresql`)")
        survive(server.url, tmp_path)
