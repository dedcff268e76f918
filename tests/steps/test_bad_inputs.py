"""Jobs on damaged models, forged plans and impossible budgets: typed errors that name what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bitwright.core.errors import InvalidInput, InvalidModel, InvalidPlan
from tests.steps.bench import Bench

UNIT = "vit.encoder.layer.0.attention.attention.query.weight"
NORM = "vit.encoder.layer.0.layernorm_after.weight"
DATA_FREE = {"metric": "weight-mse", "confirm": False}


@pytest.fixture
def vit(models_dir: Path) -> str:
    return str(models_dir / "vit-digits")


def _damaged(folder: Path, source: str, tensor: str, value: float) -> str:
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor].reshape(-1)[3] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("tensor", [UNIT, NORM])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_named(
    tensor: str, value: float, vit: str, bench: Bench, tmp_path: Path
) -> None:
    model = _damaged(tmp_path / "model", vit, tensor, value)
    fisher = {"metric": "fisher", "calibration_tokens": 64, "samples": 1}
    for members in (DATA_FREE, fisher, {**DATA_FREE, "quantizer": "gptq", "calibration_tokens": 64}):
        with pytest.raises(InvalidModel, match=tensor):
            bench.run("plan", model=model, budget="4bpw", **members)
    with pytest.raises(InvalidModel, match=tensor):
        bench.run("evaluate", model=model, tokens=64)


def test_a_checkpoint_of_a_damaged_rest_is_not_written(vit: str, bench: Bench, tmp_path: Path) -> None:
    """The plan itself may be older than the check."""
    model = _damaged(tmp_path / "model", vit, NORM, np.nan)
    plan = bench.run("plan", model=vit, budget="4bpw", **DATA_FREE)["plan"]
    plan["model"]["digest"] = bench.run("inspect", model=model)["inventory"]["digest"]
    with pytest.raises(InvalidModel, match=NORM):
        bench.run("execute", model=model, plan=plan, out=tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    assert not list(tmp_path.glob(".*out*"))


@pytest.mark.parametrize("place", ["unit", "total"])
def test_a_plan_that_states_other_bytes_is_not_executed(place: str, vit: str, bench: Bench, tmp_path: Path) -> None:
    plan: dict[str, Any] = bench.run("plan", model=vit, budget="4bpw", **DATA_FREE)["plan"]
    if place == "unit":
        plan["units"][0]["bytes"] += 1
    plan["totals"]["bytes"] += 1
    with pytest.raises(InvalidPlan, match=r"bytes|total"):
        bench.run("execute", model=vit, plan=plan, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_smallest_budget_is_said_in_the_words_of_the_request_and_is_feasible(vit: str, bench: Bench) -> None:
    told = bench.run("plan", model=vit, budget="100KB", **DATA_FREE)["infeasible"]
    assert "100KB" in told["got"]
    smallest = told["smallest_budget"]
    assert str(smallest["file_bytes"]) in told["hint"]
    assert bench.run("plan", model=vit, budget=f"{smallest['file_bytes']}B", **DATA_FREE)["feasible"]
    assert not bench.run("plan", model=vit, budget=f"{smallest['file_bytes'] - 1}B", **DATA_FREE)["feasible"]
    assert bench.run("plan", model=vit, budget=f"{smallest['bpw']}bpw", **DATA_FREE)["feasible"]


def test_a_state_folder_that_cannot_be_written_is_a_typed_error(vit: str, tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder of blobs should be")
    with pytest.raises(InvalidInput, match="cannot write"):
        Bench(tmp_path).run("plan", model=vit, budget="4bpw", **DATA_FREE)
