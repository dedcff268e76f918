"""`spike_bits`: layers with activation spikes keep a minimum of bits, and the plan says which and why."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bitwright.core.errors import InvalidInput
from tests.sensitivity.tiny_models import save_model
from tests.steps.bench import Bench
from worker.steps import spikes


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 50, (40, 16)))
    save_model("llama", tmp_path / "model")
    return Bench(tmp_path / "state")


def planned(bench: Bench, **members: object) -> dict[str, object]:
    folder = bench.settings.state_dir.parent
    return bench.run(
        "plan", model=str(folder / "model"), budget="3.2bpw", formats=["int2-g32", "int4-g32", "int8-g32"],
        calibration=str(folder / "ids.npy"), calibration_tokens=128, confirm=False, samples=1, **members,
    )["plan"]  # fmt: skip


def test_spiked_layers_keep_their_bits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    free = planned(bench)
    cheap = [number for number, unit in enumerate(free["units"]) if unit["format"] == "int2-g32"][:2]
    assert len(cheap) == 2

    def found(task: object) -> SimpleNamespace:
        kappa = np.ones(len(free["units"]))
        kappa[cheap[0]] = 90.0
        return SimpleNamespace(kappa=kappa)

    monkeypatch.setattr(spikes, "find_spikes", found)
    plan = planned(bench, spike_bits=4.0)
    assert plan["units"][cheap[0]]["format"] in ("int4-g32", "int8-g32")
    assert plan["units"][cheap[1]]["format"] == "int2-g32"
    told = next(words for words in plan["warnings"] if "spikes" in words)
    assert told.startswith("1 of")
    assert f"{free['units'][cheap[0]]['name']} (90)" in told


def test_without_spikes_nothing_changes_and_that_is_said(bench: Bench) -> None:
    free, plan = planned(bench), planned(bench, spike_bits=8.0)
    assert [unit["format"] for unit in plan["units"]] == [unit["format"] for unit in free["units"]]
    assert any(words.startswith("0 of") for words in plan["warnings"])


def test_spikes_need_data(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="calibration data"):
        planned(bench, metric="weight-mse", spike_bits=4.0)
