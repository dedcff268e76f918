"""Rankings as losses: the top of the ranking takes the bits first, and a planted outlier is at the top."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bitwright.core.errors import InvalidInput, Unsupported
from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from quantizers.rtn import QUANTIZER as RTN
from sensitivity.cosine_predictor import predict_cosine
from sensitivity.deltas import unit_weight
from sensitivity.rank import RANKINGS
from sensitivity.routing import outlier_scores, watch
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import calibrated, save_model, token_data

FORMATS = ("int2-g32", "int4-g32")


def ranked(folder: Path, by: str, **options: bool) -> dict[str, float]:
    source = open_model(str(folder), allow_path=True)
    inventory = inspect(source)
    table = score(
        source,
        inventory,
        FORMATS,
        metric="rank",
        options={"by": by, **options},
        calibration=calibrated(token_data(8, 32)),
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


def test_an_outlier_costs_its_linear_more_than_the_median(mixtral: Path) -> None:
    """What 2 bits lose over 4 (research/02 section 2 d): more with one entry of a linear made fifty times larger."""
    source = open_model(str(mixtral), allow_path=True)
    unit = next(u for u in inspect(source).units if u.expert is not None)
    weight = unit_weight(source, unit)
    planted = weight.copy()
    planted[0, 0] *= 50
    two, four = (parse_format(name) for name in FORMATS)

    def saved(w: np.ndarray) -> float:
        return sum(
            sign * float(((RTN.quantize(w, f).dequantize() - w) ** 2).sum()) for sign, f in ((1, two), (-1, four))
        )

    assert saved(planted) > saved(weight)


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"predictor": True}])
def test_the_block_that_changes_its_input_most_ranks_first(mixtral: Path, options: dict[str, bool]) -> None:
    """The sign of the block score: lowest cosine, most bits; for the learned cosine as for the measured one."""
    source = open_model(str(mixtral), allow_path=True)
    runner = load_runner(source, inspect(source))
    blocks = watch(runner, calibrated(token_data(8, 32)).scoring, residual=options.get("residual", False))
    scores = ranked(mixtral, "block", **options)
    mine = {
        block.module: scores[runner.inventory.units[block.experts[0][0]].name] for block in blocks
    }  # fmt: skip
    cosines = {block.module: block.cosine() for block in blocks}
    assert max(mine, key=lambda m: mine[m]) == min(cosines, key=lambda m: cosines[m])
    if not options.get("predictor"):
        ratio = [(1 - cosines[m]) / mine[m] for m in mine]
        assert ratio[0] == pytest.approx(ratio[1], rel=1e-4)


def test_the_residual_stream_is_what_the_block_adds_to(mixtral: Path) -> None:
    source = open_model(str(mixtral), allow_path=True)
    runner, data = load_runner(source, inspect(source)), token_data(3, 16)
    with torch.inference_mode():
        hidden = runner.model(torch.from_numpy(data.inputs["input_ids"]), output_hidden_states=True).hidden_states
    first = watch(runner, data, residual=True)[0].ends()[1]
    torch.testing.assert_close(first, hidden[1].reshape(first.shape), rtol=1e-4, atol=1e-4)


def test_the_predictor_learns_more_than_the_mean(mixtral: Path) -> None:
    """Error on sequences held back below the variance of the targets (research/02 section 2 d 5); the same by seed."""
    source = open_model(str(mixtral), allow_path=True)
    block = watch(load_runner(source, inspect(source)), token_data(20, 32))[0]
    found = predict_cosine(*block.ends(), block.sequence, 0)
    assert found.error < found.spread
    assert found.mean == pytest.approx(block.cosine(), abs=0.1)
    assert found == predict_cosine(*block.ends(), block.sequence, 0)


def test_options_of_other_rankings_are_refused(mixtral: Path) -> None:
    with pytest.raises(InvalidInput, match="no such option"):
        ranked(mixtral, "outlier", predictor=True)
    with pytest.raises(InvalidInput, match="true or false"):
        ranked(mixtral, "block", residual="yes")  # type: ignore[arg-type]


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
