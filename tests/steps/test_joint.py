"""Pair terms: when a plan is made with them, and that only the measurement decides whether it is taken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.sensitivity.tiny_models import save_model
from tests.steps.bench import Bench
from worker.steps import joint

FORMATS = ["int2-g32", "int3-g32", "int4-g32"]


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    path = tmp_path / "ids.npy"
    np.save(path, np.random.default_rng(0).integers(0, 50, (80, 32)))
    return path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    save_model("llama", tmp_path / "model")
    return Bench(tmp_path / "state")


def planned(bench: Bench, ids: Path, budget: str, model: str = "model"):
    return bench.run(
        "plan", model=str(ids.parent / model), budget=budget, formats=FORMATS, calibration=str(ids),
        calibration_tokens=1024, confirm_tokens=1024, samples=2,
    )["plan"]  # fmt: skip


def test_a_plan_of_few_bits_is_made_with_pair_terms_and_never_measures_worse(bench: Bench, ids: Path) -> None:
    plan = planned(bench, ids, "2.9bpw")
    told = plan["measured"]["extra"]["joint"]
    assert "code bits" in told["why"]
    assert told["predicted"] <= told["additive_predicted"] + 1e-12
    assert plan["measured"]["kl"] <= told["additive_kl"]
    assert not told["same"] or told["kl"] == told["additive_kl"]
    assert told["taken"] == (told["kl"] < told["additive_kl"])
    assert ("pairs" in plan["provenance"]["solver"]) == told["taken"]
    assert plan["provenance"]["prediction"]["joint"] > 0


def test_pair_terms_that_mislead_are_not_taken(bench: Bench, ids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nonsense(*arguments: object, **more: object) -> SimpleNamespace:
        cells = len(arguments[4])  # type: ignore[arg-type]
        rng = np.random.default_rng(0)
        made = rng.standard_normal((cells, cells))
        return SimpleNamespace(products=lambda: 10 * (made + made.T))

    monkeypatch.setattr(joint, "sketch", nonsense)
    plan = planned(bench, ids, "2.9bpw")
    told = plan["measured"]["extra"]["joint"]
    assert told["kl"] > told["additive_kl"] == plan["measured"]["kl"]
    assert not told["taken"]
    assert "pairs" not in plan["provenance"]["solver"]


def test_plans_of_more_bits_and_mixtures_are_not_probed(bench: Bench, ids: Path, monkeypatch) -> None:
    monkeypatch.setattr(joint, "sketch", None)
    monkeypatch.setattr(joint, "APART", 10.0)
    assert "joint" not in planned(bench, ids, "4bpw")["measured"]["extra"]
    save_model("mixtral", ids.parent / "experts")
    assert "joint" not in planned(bench, ids, "2.9bpw", "experts")["measured"]["extra"]
