"""A job that was stopped inside a step goes on where it stood, and ends with the bytes of one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.table import load_table
from sensitivity import passes
from tests.steps.bench import Bench
from worker.steps import partial as kept
from worker.steps.partial import PartialFile, kept_in

#: Twelve sequences to score (three batches and more on the expert model, which takes one at a time), few labels.
SMALL = {"calibration_tokens": 1536, "confirm_tokens": 1024, "samples": 1, "formats": ["int2-g64", "int4-g64"]}


class Stopped(Exception):
    """The kill, at a chosen moment."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept after every batch, and a batch is one item: there are batches to stop between."""
    monkeypatch.setattr(kept, "EVERY", 0.0)
    monkeypatch.setattr(passes, "BATCH_ITEMS", 1)


def stop_when(bench: Bench, stage: str, fraction: float) -> None:
    """The bench's next job dies the first time that `stage` has come as far as `fraction`."""

    def listen(said: str, done: float, message: str) -> None:
        bench.said.append((said, message))
        if said == stage and done >= fraction and message.endswith((" items", "uniform")):
            raise Stopped

    bench.listen = listen


def items_worked(bench: Bench, stage: str) -> int:
    return sum(1 for said, message in bench.said if said == stage and (stage != "score" or message.endswith(" items")))


@pytest.fixture
def benches(tmp_path: Path) -> tuple[Bench, Bench]:
    return Bench(tmp_path / "whole"), Bench(tmp_path / "stopped")


@pytest.mark.parametrize("metric", ["fisher", "fisher-token"])
def test_scoring_goes_on_after_the_last_batch_kept(benches: tuple[Bench, Bench], models_dir: Path, metric: str) -> None:
    whole, stopped = benches
    request: dict[str, Any] = {"model": str(models_dir / "mixtral-stdlib"), "metric": metric, **SMALL}
    request.pop("confirm_tokens")
    expected = whole.run("sensitivity", **request)
    stop_when(stopped, "score", 0.6)
    with pytest.raises(Stopped):
        stopped.run("sensitivity", **request)
    stopped.listen = None
    before = items_worked(stopped, "score")
    stopped.said.clear()
    resumed = stopped.run("sensitivity", **request)
    assert before > 1
    # The batch during whose report the job died was done, but not yet kept: it is done again.
    assert items_worked(stopped, "score") <= items_worked(whole, "score") - before + 1
    assert resumed["table_digest"] == expected["table_digest"]
    tables = [load_table(b.context().blobs.path("tables", expected["table_digest"])) for b in benches]
    np.testing.assert_array_equal(tables[0].stderr, tables[1].stderr)
    assert not list((stopped.settings.blob_dir / "partial").iterdir())


def test_confirming_goes_on_after_the_last_variant_kept(benches: tuple[Bench, Bench], models_dir: Path) -> None:
    whole, stopped = benches
    request: dict[str, Any] = {"model": str(models_dir / "llama-stdlib"), "metric": "weight-mse", "budget": "3bpw"}
    request |= {k: v for k, v in SMALL.items() if k != "samples"}
    expected = whole.run("plan", **request)
    stop_when(stopped, "measure", 0.5)
    with pytest.raises(Stopped):
        stopped.run("plan", **request)
    stopped.listen = None
    stopped.said.clear()
    resumed = stopped.run("plan", **request)
    assert resumed["plan"] == expected["plan"]
    assert ("measure", "plan") not in stopped.said  # measured before the stop
    assert ("measure", "feasible_uniform") in stopped.said


def test_a_state_that_a_failing_disk_left_unreadable_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "state"
    PartialFile(path).save(lambda: {"sum": np.arange(5.0)})
    np.testing.assert_array_equal(PartialFile(path).load()["sum"], np.arange(5.0))
    path.write_bytes(path.read_bytes()[:-30])
    assert PartialFile(path).load() == {}
    assert not path.exists()


def test_a_state_stays_when_its_step_fails_and_goes_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "state"

    def fails() -> None:
        with kept_in(path) as state:
            state.save(lambda: {"sum": np.zeros(2)})
            raise Stopped

    with pytest.raises(Stopped):
        fails()
    assert path.exists()
    with kept_in(path) as state:
        assert set(state.load()) == {"sum"}
    assert not path.exists()
