"""Scoring cut into parts over workers: the same table, to the byte, as from one worker."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bitwright.core.requests import parse_request
from bitwright.jobs.store import open_store
from bitwright.settings import Settings
from worker.fanout import FanOut, do_part
from worker.runner import Runner
from worker.steps import run
from worker.steps.context import Context

MODEL = "file:models/llama-stdlib"


def by_runner(settings: Settings, request: dict[str, object]) -> tuple[dict[str, object], int]:
    """Done by one slot, turn by turn; the result and the number of turns."""
    store = open_store(settings.resolved_database_url)
    runner = Runner(store, settings, "w", threading.Event(), threading.Event())
    job_id, turns = store.create(request).job.id, 0
    while not store.get(job_id).done:
        assert runner.run_next()
        turns += 1
    job = store.get(job_id)
    store.close()
    assert job.state == "succeeded", job.error
    return job.result, turns


def test_parts_over_workers_give_the_table_of_one_worker(tmp_path: Path, models_dir: Path) -> None:
    request = {"kind": "sensitivity", "model": MODEL, "metric": "weight-mse", "formats": ["int3-g64", "int4-g64"]}
    tables = {}
    for shards, turns in ((1, 1), (3, 1 + 3 + 1)):
        settings = Settings(state_dir=tmp_path / str(shards), model_roots={"models": models_dir}, shards=shards)
        result, took = by_runner(settings, request)
        assert took == turns
        tables[shards] = result["table_digest"]
    assert tables[1] == tables[3]


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_parts_of_measured_units_join_to_the_same_table(tmp_path: Path, models_dir: Path, granularity: str) -> None:
    metric = "kl-probe" if granularity == "tensor" else "weight-mse"
    request = parse_request({
        "kind": "sensitivity", "model": MODEL, "metric": metric, "formats": ["int3-g64"], "calibration_tokens": 256,
        **({"granularity": granularity} if granularity != "tensor" else {}),
    })  # fmt: skip
    digests = []
    for shards in (1, 4):
        settings = Settings(state_dir=tmp_path / str(shards), model_roots={"models": models_dir}, shards=shards)
        context = Context(settings)
        try:
            digests.append(run(request, context)["table_digest"])
        except FanOut as fan:
            parts = fan.parts
            for part in parts:
                do_part(part, context)
            digests.append(run(request, context)["table_digest"])
    assert len(parts) == 4
    assert digests[0] == digests[1]
