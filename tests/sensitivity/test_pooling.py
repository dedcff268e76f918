"""Cells pooled over formats: nearer to the truth where they are noisy, as measured where they are not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.formats import parse_formats
from sensitivity.base import ScoringTask
from sensitivity.pooling import pooling
from sensitivity.response import LARGEST_KL, Response, anchors, cheapest, joined

FORMATS = np.array([4.0, 1.0, 0.25, 0.06])


def drawn(seed: int, own: float, noise: float, units: int = 200) -> tuple[Any, Any, Any, Any]:
    """(truth, measured, stderr, squared error) of units whose cells are level x typical x (1 + own)."""
    rng = np.random.default_rng(seed)
    energy = rng.lognormal(size=(units, 1)) * FORMATS
    level = rng.lognormal(sigma=2, size=(units, 1))
    truth = energy * level * np.array([1.3, 1.0, 0.9, 1.0]) * np.exp(own * rng.normal(size=energy.shape))
    loss = truth * np.maximum(0.05, 1 + noise * rng.normal(size=energy.shape))
    return truth, loss, noise * truth, energy


def far(cells: Any, truth: Any) -> float:
    return float(np.sqrt(np.mean((cells / truth - 1) ** 2)))


@pytest.mark.parametrize(("own", "noise"), [(0.1, 0.13), (0.1, 0.3), (0.3, 0.13), (0.02, 0.2)])
def test_pooled_cells_are_nearer_to_the_truth_and_know_how_near(own: float, noise: float) -> None:
    truth, loss, stderr, energy = drawn(0, own, noise)
    found = pooling(loss, stderr, energy)
    cells = found.apply(loss)
    assert far(cells, truth) < 0.96 * far(loss, truth)
    ideal = np.sqrt(1 / (1 / own**2 + 1 / noise**2) + noise**2 / len(FORMATS))
    assert far(cells, truth) < 1.25 * ideal
    told = np.sqrt(np.mean((found.stderr(cells, stderr) / cells) ** 2))
    assert told == pytest.approx(far(cells, truth), rel=0.3)


def test_a_format_whose_errors_go_their_own_way_is_left_alone_and_does_not_disturb_the_others() -> None:
    truth, loss, stderr, energy = drawn(1, 0.05, 0.15)
    swing = np.exp(np.random.default_rng(2).normal(size=len(truth)))
    truth[:, 0], loss[:, 0], stderr[:, 0] = truth[:, 0] * swing, loss[:, 0] * swing, stderr[:, 0] * swing
    found = pooling(loss, stderr, energy)
    assert found.keep[:, 0].min() > 0.9
    cells = found.apply(loss)
    assert far(cells[:, 0], truth[:, 0]) < 1.1 * far(loss[:, 0], truth[:, 0])
    assert far(cells[:, 1:], truth[:, 1:]) < 0.75 * far(loss[:, 1:], truth[:, 1:])


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_what_is_known_stays(seed: int, own: float) -> None:
    _, loss, _, energy = drawn(seed, own, 0.0, units=20)
    unknown = np.full_like(loss, np.nan)
    np.testing.assert_allclose(pooling(loss, 0 * loss, energy).apply(loss), loss, rtol=1e-9)
    for few in (slice(0, 7), slice(0, 0)):
        found = pooling(loss[few], loss[few], energy[few])
        assert np.array_equal(found.apply(loss[few]), loss[few]), "too few units to know how they differ"
        assert np.array_equal(found.stderr(loss[few], loss[few]), loss[few])
    assert np.array_equal(pooling(loss, unknown, energy).apply(loss), loss), "stand-ins of units never reached"
    assert np.array_equal(pooling(loss[:, :1], loss[:, :1], energy[:, :1]).apply(loss[:, :1]), loss[:, :1])


@given(st.integers(0, 2**32 - 1))
def test_a_lossless_format_stays_lossless_and_the_map_is_linear(seed: int) -> None:
    _, loss, stderr, energy = drawn(seed, 0.1, 0.2, units=30)
    loss[:, 2] = energy[:, 2] = stderr[:, 2] = 0
    found = pooling(loss, stderr, energy)
    cells = found.apply(loss)
    assert (cells[:, 2] == 0).all()
    assert (cells >= 0).all()
    np.testing.assert_allclose(found.apply(np.stack([loss, 3 * loss])), np.stack([cells, 3 * cells]))


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_cheapest_plan_is_within_its_bytes_and_no_unit_could_do_better_at_its_price(
    seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    loss = np.sort(rng.lognormal(sigma=2, size=(12, 4)), axis=1)[:, ::-1]
    cost = np.sort(rng.integers(1, 1000, (12, 4)), axis=1)
    least, most = cost.min(axis=1).sum(), cost.max(axis=1).sum()
    rows, limit = np.arange(12), least + share * (most - least)
    chosen = cheapest(loss, cost, limit)
    total = cost[rows, chosen].sum()
    assert total <= limit
    for _ in range(200):
        other = rng.integers(0, 4, 12)
        if cost[rows, other].sum() <= total:
            assert loss[rows, other].sum() >= loss[rows, chosen].sum() * (1 - 1e-12)


def _task(names: tuple[str, ...], units: int) -> ScoringTask:
    shapes = [SimpleNamespace(shape=(64, 64)) for _ in range(units)]
    return cast(ScoringTask, SimpleNamespace(formats=parse_formats(names), inventory=SimpleNamespace(units=shapes)))


def test_anchors_are_two_plans_of_the_table_within_what_an_expansion_can_tell() -> None:
    names = ("int2-g64", "int3-g64", "int4-g64", "int8-g64")
    loss = np.random.default_rng(0).lognormal(size=(40, 1)) * FORMATS * 1e-4
    (_, low, first), (_, high, second) = anchors(_task(names, 40), loss)
    assert low > high
    assert first.mean() < second.mean()
    (_, low, _), (_, high, _) = anchors(_task(names, 40), 100 * loss)
    assert high < low <= LARGEST_KL / 2, "a plan that costs too much gives way to a larger one"
    assert len(list(anchors(_task(names[:1], 40), loss[:, :1]))) == 1


def test_one_anchor_fixes_the_scale_and_text_adds_to_the_doubt() -> None:
    def of(*points: tuple[str, float, float, float]) -> Response:
        return joined([Response(points=points)])

    single = of(("a", 0.01, 0.012, 0.0012))
    assert (single.scale, single.jump) == pytest.approx((1.2, 0.0))
    assert single.spread == pytest.approx(0.1)
    both = of(("a", 0.01, 0.012, 0.0012), ("b", 0.0001, 0.00015, 0.0))
    assert both.kl(0.01) == pytest.approx(0.012)
    assert both.kl(0.0001) == pytest.approx(0.00015)
    assert both.spread == pytest.approx(0.1 / np.sqrt(2))
    assert Response.from_json(both.to_json()) == both
