"""A real job cut into parts while workers are killed: table and checkpoint are those of one undisturbed worker."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from bitwright.core.plan import plan_from_json
from bitwright.core.requests import parse_request
from tests.chaos.fleet import children, faults_of_history, fleet, quick_settings, wait_for
from tests.chaos.sizes import FULL, SEED, reproduce, size
from worker.steps import run
from worker.steps.context import Context

MODELS = Path(__file__).resolve().parents[1] / "models"
PARTS, KILLS = size(12, 2), size(12, 1)
#: The suite takes a metric whose children start in a second; parts of gradients go the same way (tests/steps).
SCORING = {"calibration_tokens": 4096, "samples": 1} if FULL else {"metric": "weight-mse"}
REQUEST = {
    "kind": "plan", "model": "file:models/mixtral-stdlib", "budget": "4bpw", "formats": ["int3-g64", "int4-g64"],
    "confirm": False, "to": "packed", **SCORING,
}  # fmt: skip


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"] if FULL else ["sqlite"], indirect=True)
def test_killed_workers_change_no_byte_of_a_plan_and_its_checkpoint(database_url, tmp_path):
    chance = random.Random(SEED)
    alone, cut = tmp_path / "alone", tmp_path / "cut"
    roots = {"models": MODELS}
    expected = run(parse_request(REQUEST), Context(quick_settings(alone, None, model_roots=roots, shards=1)))
    cut.mkdir()
    settings = quick_settings(cut, database_url, model_roots=roots, shards=PARTS)
    with fleet(settings, 2, steps="worker.work:run", slots=1) as found:
        job_id, kills, end = found.store.create(REQUEST).job.id, 0, time.monotonic() + 1500
        ended: dict[str, int] = {}
        due = 0.0
        while found.left and time.monotonic() < end:
            busy = [process for process in found.workers if children(process)]
            # One kill more for each part that has ended: killed at its start alone, a job waits longer and longer.
            job = found.store.get(job_id)
            if job.parked:
                ended[job.stage] = job.steps_total - job.steps_left
            if kills < min(KILLS, 1 + sum(ended.values())) and busy:
                due = due or time.monotonic() + chance.uniform(0.0, 2.0 if FULL else 0.5)
                if time.monotonic() >= due:
                    found.kill(chance.choice(busy))
                    found.start()
                    kills, due = kills + 1, 0.0
            time.sleep(0.1)
        how = f"{kills} kills; {reproduce('tests/chaos/test_parts_kills.py')}"
        print(how)
        wait_for(lambda: found.store.get(job_id).done, 5, how)
        job, events = found.store.get(job_id), found.store.events_after(job_id, limit=10_000)
        assert job.state == "succeeded", f"{job.error}; {how}"
        assert [event.type for event in events].count("barrier") == 2, f"scoring and writing; {how}"
        assert faults_of_history(found.store, job_id) == [], how
    assert kills == KILLS, how
    assert plan_from_json(job.result["plan"]) == plan_from_json(expected["plan"]), how
    assert job.result["table_digest"] == expected["table_digest"], how
    assert bytes_of(job.result) == bytes_of(expected), how


def bytes_of(result: dict[str, object]) -> dict[str, bytes]:
    folder = Path(result["checkpoint"]["path"])  # type: ignore[index]
    return {file.name: file.read_bytes() for file in folder.iterdir()}
