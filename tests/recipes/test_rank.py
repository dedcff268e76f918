"""Rankings as losses: the top of the ranking takes the bits first, and a planted outlier is at the top."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bitwright.core.errors import InvalidInput, Unsupported
from bitwright.models import inspect, open_model
from sensitivity.rank import RANKINGS
from sensitivity.routing import outlier_scores
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import calibrated, save_model, token_data

FORMATS = ("int2-g32", "int4-g32")


def ranked(folder: Path, by: str) -> dict[str, float]:
    source = open_model(str(folder), allow_path=True)
    inventory = inspect(source)
    table = score(
        source, inventory, FORMATS, metric="rank", options={"by": by}, calibration=calibrated(token_data(8, 32))
    )
    return {u.name: float(row[0] / u.elements) for u, row in zip(inventory.units, table.loss, strict=True)}


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("mixtral", tmp_path_factory.mktemp("rank"))


def test_a_planted_outlier_ranks_first(mixtral: Path, tmp_path: Path) -> None:
    for file in mixtral.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(n for n in sorted(tensors) if "experts" in n and tensors[n].ndim >= 2)
    changed = tensors[name].copy()
    changed[(0,) * changed.ndim] = 60 * np.abs(changed).max()
    save_file({**tensors, name: changed}, tmp_path / "model.safetensors", {"format": "pt"})
    scores = ranked(tmp_path, "outlier")
    assert max(scores, key=lambda unit: scores[unit]).startswith(name)


def test_outlier_scores_do_not_change_with_the_scale() -> None:
    weight = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)
    np.testing.assert_allclose(outlier_scores([weight]), outlier_scores([weight * 2**-7]), rtol=1e-6)


def test_first_layers_come_first(mixtral: Path) -> None:
    scores = ranked(mixtral, "first")
    by_layer = [next(v for name, v in scores.items() if f"layers.{layer}." in name) for layer in range(2)]
    assert by_layer[0] > by_layer[1] > scores["lm_head.weight"]


@pytest.mark.parametrize("by", ["frequency", "block"])
def test_experts_lead_rankings_of_experts(mixtral: Path, by: str) -> None:
    scores = ranked(mixtral, by)
    best = max(scores, key=lambda unit: scores[unit])
    assert "experts" in best
    assert scores["lm_head.weight"] <= 2e-6 * scores[best]


def test_bad_rankings_are_refused(mixtral: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="ranking") as error:
        ranked(mixtral, "beauty")
    assert error.value.expected == ", ".join(RANKINGS)
    dense = save_model("llama", tmp_path)
    with pytest.raises(Unsupported, match="experts"):
        ranked(dense, "frequency")
