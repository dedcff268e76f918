"""Scoring cut into parts over workers: the same table, to the byte, as from one worker."""

from __future__ import annotations

import itertools
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from bitwright.core.requests import JobRequest, parse_request
from bitwright.jobs.store import open_store
from bitwright.settings import Settings
from sensitivity import memory, passes, streaming
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
        settings = Settings(
            state_dir=tmp_path / str(shards), model_roots={"models": models_dir}, shards=shards, cut_weights=0
        )
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
    assert parts_made(request, tmp_path, models_dir) == 4


@pytest.mark.parametrize(
    ("metric", "more"),
    [
        ("fisher", {}),
        ("fisher", {"granularity": "row"}),
        ("fisher-pooled", {}),
        ("hessian-trace", {}),
        ("grad-output", {}),
    ],
)
def test_batches_over_workers_add_up_to_the_same_table(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch, metric: str, more: dict[str, object]
) -> None:
    monkeypatch.setattr(passes, "BATCH_ITEMS", 1)
    request = parse_request({
        "kind": "sensitivity", "model": MODEL, "metric": metric, "formats": ["int3-g64"], "calibration_tokens": 768,
        "samples": 1, **more,
    })  # fmt: skip
    assert parts_made(request, tmp_path, models_dir) == 3


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_a_model_that_does_not_fit_the_memory_is_streamed_by_every_worker(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch, granularity: str
) -> None:
    """Which way is decided once, however much memory the others find free."""
    monkeypatch.setattr(streaming, "GROUP_TOKENS", 256)
    free = itertools.chain([0.0, 0.0], itertools.repeat(math.inf))
    monkeypatch.setattr(memory, "free_memory", lambda: next(free))
    request = parse_request({
        "kind": "sensitivity", "model": MODEL, "metric": "fisher", "formats": ["int3-g64"], "calibration_tokens": 768,
        "granularity": granularity, "samples": 1,
    })  # fmt: skip
    assert parts_made(request, tmp_path, models_dir) == 3


def cut_into(shards: int, tmp_path: Path, models_dir: Path) -> Context:
    """A state folder of its own, where work of any size is cut into so many parts."""
    state = tmp_path / str(shards)
    return Context(Settings(state_dir=state, model_roots={"models": models_dir}, shards=shards, cut_weights=0))


@pytest.mark.parametrize(
    ("quantizer", "to"), [("rtn", "packed"), ("gptq", "packed"), ("rtn", "gguf"), ("rtn", "compressed-tensors")]
)
def test_parts_over_workers_write_the_checkpoint_of_one_worker(
    tmp_path: Path, models_dir: Path, quantizer: str, to: str
) -> None:
    request = {
        "kind": "plan", "model": MODEL, "metric": "weight-mse", "formats": ["int4-sym-g32", "int8-sym-g32"],
        "budget": "6bpw", "quantizer": quantizer, "calibration_tokens": 512, "confirm": False, "to": to,
    }  # fmt: skip
    found = {}
    for shards in (1, 3):
        result, stages = turn_by_turn(parse_request(request), cut_into(shards, tmp_path, models_dir))
        assert stages == ([] if shards == 1 else [("score", 3), ("write", 3)])
        folder = Path(result["checkpoint"]["path"])
        found[shards] = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert found[1] == found[3]
    left = [path for path in (tmp_path / "3/blobs/parts").iterdir() if (path / "data").exists()]
    assert not left, "what was copied into the checkpoint takes no room any more"


def test_variants_over_workers_measure_what_one_worker_measures(tmp_path: Path, models_dir: Path) -> None:
    """A part for each variant; the plan, the pair terms and all that is measured are those of one worker."""
    request = {
        "kind": "plan", "model": MODEL, "metric": "weight-mse", "formats": ["int2-g64", "int3-g64", "int8-g64"],
        "budget": "2.9bpw", "calibration_tokens": 256, "confirm_tokens": 256,
    }  # fmt: skip
    found = {}
    for shards in (1, 3):
        result, stages = turn_by_turn(parse_request(request), cut_into(shards, tmp_path, models_dir))
        found[shards] = result
        variants = 4
        assert stages == ([] if shards == 1 else [("score", 3), ("measure", variants)])
    assert found[1]["plan"].keys() == found[3]["plan"].keys()
    for member, value in found[1]["plan"].items():
        assert value == found[3]["plan"][member], member
    assert found[1]["plan"]["measured"]["extra"]["feasible_uniform"]


def test_small_models_are_cut_only_where_that_was_asked_for(tmp_path: Path, models_dir: Path) -> None:
    """With a broker and nothing said, parts of a small model would cost more to start than they save."""
    common: dict[str, Any] = {"model_roots": {"models": models_dir}, "broker_url": "redis://127.0.0.1:1"}
    request = parse_request({"kind": "sensitivity", "model": MODEL, "metric": "weight-mse", "formats": ["int3-g64"]})
    for number, (chosen, parts) in enumerate(
        [({}, []), ({"cut_weights": 1000}, [("score", 8)]), ({"shards": 2}, [("score", 2)])]
    ):
        settings = Settings(state_dir=tmp_path / str(number), **common, **chosen).for_child()
        assert turn_by_turn(request, Context(settings))[1] == parts


def turn_by_turn(request: JobRequest, context: Context) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """(the result, the stages that were cut with their numbers of parts), all in this process."""
    stages = []
    while True:
        try:
            return run(request, context), stages
        except FanOut as fan:
            stages.append((fan.stage, len(fan.parts)))
            for part in reversed(fan.parts):
                do_part(part, context)


def parts_made(request: JobRequest, tmp_path: Path, models_dir: Path) -> int:
    """How many parts the table was made of; it must be the one of a single worker."""
    found = []
    for shards in (1, 4):
        settings = Settings(
            state_dir=tmp_path / str(shards), model_roots={"models": models_dir}, shards=shards, cut_weights=0
        )
        result, stages = turn_by_turn(request, Context(settings))
        found.append(result["table_digest"])
    assert found[0] == found[1]
    return sum(count for _, count in stages)
