"""Resampled tables, what they say of a plan, the response of a model, and the effort a wanted error needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitwright.core.errors import InvalidInput
from bitwright.core.table import load_table
from sensitivity.doubt import predict, stability
from sensitivity.moments import Moments
from sensitivity.pooling import as_measured, samples_of
from sensitivity.precision import Pilot, choose
from sensitivity.response import Response, fit
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import DATA, Opened, calibrated, token_data

FORMATS = ("int2-g32", "int4-g32")
NONE = np.zeros(3, np.bool_)


def test_resampled_means_spread_like_the_standard_error() -> None:
    values = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=(400, 3, 2)))
    moments = Moments(3, 2, replicates=200, seed=5)
    for start in range(0, 400, 32):
        rows = np.arange(start, min(400, start + 32))
        moments.add(values[rows], NONE, rows)
    spread = moments.resampled().std(axis=0, ddof=1)
    np.testing.assert_allclose(spread, moments.stderr(1), rtol=0.2)
    np.testing.assert_allclose(moments.resampled().mean(axis=0), moments.mean(), rtol=0.02)


def test_resampling_does_not_depend_on_batches() -> None:
    values = torch.rand(10, 2, 2, dtype=torch.float64)
    whole, parts = Moments(2, 2, replicates=3, seed=1), Moments(2, 2, replicates=3, seed=1)
    whole.add(values, NONE[:2], np.arange(10))
    parts.add(values[6:], NONE[:2], np.arange(6, 10))
    parts.add(values[:6], NONE[:2], np.arange(6))
    np.testing.assert_allclose(whole.resampled(), parts.resampled(), rtol=1e-12)


@pytest.mark.parametrize(("scale", "jump"), [(1.0, 0.0), (1.0, 0.012), (3.0, 0.0)])
def test_the_response_is_found_again(scale: float, jump: float) -> None:
    sums = np.array([0.3, 0.05, 0.01, 0.002, 0.0006, 4e-5])
    found = fit(sums, scale * sums + jump * np.sqrt(sums))
    assert (found.scale, found.jump) == (pytest.approx(scale), pytest.approx(jump, abs=1e-9))
    assert found.spread == pytest.approx(0.0, abs=1e-9)
    assert Response.from_json(found.to_json()) == found


def test_an_interval_holds_its_prediction_and_widens_with_doubt() -> None:
    response = Response(1.0, 0.01, 0.05, 6)
    narrow, wide = response.interval(0.01, 0.0), response.interval(0.01, 0.002)
    assert wide[0] < narrow[0] < response.kl(0.01) < narrow[1] < wide[1]
    assert response.interval(0.0, 0.0) == (0.0, 0.0)
    assert Response.from_json(None).kl(0.3) == 0.3


def _greedy(loss: np.ndarray) -> np.ndarray:
    """The better format for the half of the units that gains most."""
    gain = loss[:, 0] - loss[:, 1]
    choice = np.zeros(len(loss), np.int64)
    choice[np.argsort(-gain, kind="stable")[: len(loss) // 2]] = 1
    return choice


def test_noise_makes_plans_unstable_and_sums_optimistic() -> None:
    rng = np.random.default_rng(3)
    loss = np.stack([rng.uniform(0.9, 1.1, 200), rng.uniform(0.05, 0.15, 200)], axis=1)
    quiet = loss * rng.normal(1, 1e-6, (10, 200, 2))
    noisy = loss * rng.normal(1, 0.3, (10, 200, 2)).clip(0.05)
    choice = _greedy(loss)
    calm, rough = stability(loss, quiet, choice, _greedy), stability(loss, noisy, choice, _greedy)
    assert calm.mean < 0.02
    assert calm.optimism == pytest.approx(1.0, abs=1e-3)
    assert rough.mean > 0.2
    assert rough.optimism > 1.1
    assert rough.regret > 0
    found = predict(loss, np.full_like(loss, 0.01), choice, Response(), resampled=noisy, optimism=rough.optimism)
    assert found.low < found.kl < found.high
    assert found.kl == pytest.approx(found.additive * rough.optimism)
    nothing = stability(loss, noisy[:0], choice, _greedy)
    assert (nothing.optimism, nothing.mean) == (1.0, 0.0)


def test_samples_are_raised_where_items_agree_and_items_where_they_do_not() -> None:
    rng = np.random.default_rng(0)
    same, different = Pilot(), Pilot()
    chi = torch.from_numpy(rng.chisquare(1, (4, 200, 5, 2)))
    same.add(chi)
    different.add(1.0 + torch.from_numpy(rng.gamma(0.2, 5.0, (1, 200, 5, 2))) + 0.01 * chi)
    assert choose(same, 0.1, 10).samples > 10
    assert choose(different, 0.1, 10).samples == 1
    effort = choose(same, 0.1, 10_000)
    assert effort.expected <= 0.1
    assert effort.items < 400
    assert choose(different, 0.001, 50).expected > 0.001


def test_a_wanted_error_chooses_items_and_samples(tiny: dict[str, Opened]) -> None:
    calibration = calibrated(token_data(24, 9))
    rough, fine = (
        score(*tiny["llama"], FORMATS, calibration=calibration, options={"relative_error": wanted})
        for wanted in (0.5, 0.01)
    )
    assert rough.provenance["samples"] < fine.provenance["samples"]
    assert fine.provenance["parameters"]["items"] == 24
    assert any("instead of 0.01" in warning for warning in fine.provenance["warnings"])
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        score(*tiny["llama"], FORMATS, calibration=calibration, options={"relative_error": 2})


def test_tables_keep_resampled_cells_and_signed_samples(tiny: dict[str, Opened], tmp_path) -> None:
    table = score(*tiny["llama"], FORMATS, calibration=calibrated(DATA["llama"]()), options={"keep_samples": True})
    signed, resampled = table.extras["signed"], table.extras["resampled"]
    squares = 0.5 * (signed.astype(np.float64) ** 2).mean(axis=0)
    np.testing.assert_allclose(squares, as_measured(table).loss, rtol=1e-5)
    around, scaled = samples_of(table)
    assert around is not None
    assert scaled is not None
    np.testing.assert_allclose(0.5 * (scaled.astype(np.float64) ** 2).mean(axis=0), table.loss, rtol=1e-5)
    np.testing.assert_allclose(around.mean(axis=0), table.loss, rtol=0.5)
    assert resampled.shape[1:] == table.loss.shape
    table.save(tmp_path / "t.npz")
    again = load_table(tmp_path / "t.npz")
    assert again.digest == table.digest
    assert again.restrict(FORMATS[1:]).extras["signed"].shape == (*signed.shape[:2], 1)
    assert set(table.provenance["response"]) == {"scale", "jump", "spread", "anchors", "points", "optimised"}


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_outputs_that_scoring_kept_are_those_of_running_again(
    tiny: dict[str, Opened], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """To the bit, and near to what measuring finds by itself."""
    monkeypatch.setattr("sensitivity.passes.BATCH_ITEMS", 3)
    calibration, responses = calibrated(token_data(8, 12)), []
    for room in (1 << 28, 4 << 10, 0):
        monkeypatch.setattr("sensitivity.originals.KEPT_BYTES", room)
        responses.append(score(*tiny[name], FORMATS, calibration=calibration).provenance["response"])
    assert responses[0] == responses[1] == responses[2]
    monkeypatch.setattr("sensitivity.fisher.originals", lambda *_: None)
    alone = score(*tiny[name], FORMATS, calibration=calibration).provenance["response"]
    for found, expected in zip(responses[0]["points"], alone["points"], strict=True):
        assert found[2:] == pytest.approx(expected[2:], rel=1e-3)
