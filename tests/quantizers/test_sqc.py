"""SliM-LLM's ranges: the score never above that of the plain range, the mask, the sign format inside GPTQ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.errors import InvalidInput, Unsupported
from bitwright.core.formats import IntFormat, parse_format
from bitwright.core.mixed_format import mixed
from quantizers.catalog import QUANTIZERS
from quantizers.compensation import row_errors
from quantizers.gptq import ORDERS
from quantizers.hessian import damped
from quantizers.mixed import quantize
from quantizers.range_search import power_errors
from quantizers.rtn import group_parameters
from quantizers.sqc import POWER, QUANTIZER, Ranges
from tests.quantizers.test_gptq import error, moments


def score(group: np.ndarray, counts: np.ndarray, scale: np.ndarray, zero: np.ndarray, format: IntFormat) -> np.ndarray:
    return power_errors(group, counts, scale[None], zero[None], format.top, POWER)[0]


MENU = tuple(parse_format(name) for name in ("sign-g16", "int2-g16", "int3-sym-g16"))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), width=st.sampled_from([2, 3, 4]), lam=st.sampled_from([0.5, 1.0, 4.0, 100.0]))
def test_the_score_is_never_above_that_of_the_plain_range(seed: int, width: int, lam: float) -> None:
    rng = np.random.default_rng(seed)
    group = (rng.standard_normal((6, 24)) * rng.gamma(1, 1, 24)).astype(np.float32)
    format, ranges = parse_format(f"int{width}-g24"), Ranges(lam=lam)
    counts = ranges.weights(group, rng.gamma(1, 1, 24))
    chosen = ranges.choose(group, counts, format, "w")
    low, high = group.min(axis=1, keepdims=True), group.max(axis=1, keepdims=True)
    plain = (array[:, 0] for array in group_parameters(group[:, None], low, high, format, "w"))
    assert (score(group, counts, *chosen, format) <= score(group, counts, *plain, format)).all()


def test_a_larger_lambda_errs_less_on_salient_weights() -> None:
    rng = np.random.default_rng(0)
    group = rng.standard_normal((200, 32)).astype(np.float32)
    costs, format = np.ones(32), parse_format("int2-g32")
    errors = []
    for lam in (1.0, 50.0):
        counts = Ranges(lam=lam).weights(group, costs)
        salient = (np.square(group, dtype=np.float64) - np.square(group).mean()) > 2 * np.square(group).std()
        assert np.array_equal(counts > 1, salient & (lam > 1))
        errors.append(
            score(group, salient.astype(np.float32), *Ranges(lam=lam).choose(group, counts, format, "w"), format).sum()
        )
    assert errors[1] < 0.95 * errors[0]


def test_without_a_lambda_the_mask_changes_nothing() -> None:
    weight = np.random.default_rng(1).standard_normal((12, 32)).astype(np.float32)
    format, hessian = parse_format("int2-g16"), moments(32)
    plain, deviating = (
        QUANTIZER.quantize(weight, format, hessian=hessian, deviations=d).dequantize() for d in (2.0, 0.5)
    )
    assert np.array_equal(plain, deviating)


@pytest.mark.parametrize("quantizer", ["gptq", "sqc"])
@pytest.mark.parametrize("order", ["activation", "natural"])
def test_signs_are_rounded_in_the_sweep_as_the_definition_says(quantizer: str, order: str) -> None:
    """One column at a time, by the definition: q = s sign(w), s the mean magnitude of the block's own weights."""
    rng = np.random.default_rng(2)
    weight, hessian = rng.standard_normal((8, 16)).astype(np.float32), moments(16)
    member = QUANTIZERS.load(quantizer)
    made = member.quantize(weight, parse_format("sign-g16"), hessian=hessian, order=order, gain=False).dequantize()
    prepared = QUANTIZERS.load("gptq")._prepared(hessian, 16, 0.01, order, "w")
    work = weight[:, prepared.permutation].astype(np.float64)
    scale = np.abs(weight).mean(axis=1).astype(np.float16).astype(np.float64)
    for j in range(16):
        q = np.where(work[:, j] >= 0, scale, -scale)
        assert np.array_equal(made[:, prepared.permutation[j]], q.astype(np.float32))
        work[:, j:] -= np.outer((work[:, j] - q) / prepared.upper[j, j], prepared.upper[j, j:])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20), width=st.sampled_from([2, 3, 4]), mixing=st.booleans(), order=st.sampled_from(ORDERS)
)
def test_no_row_ends_with_more_error_than_that_of_gptq(seed: int, width: int, mixing: bool, order: str) -> None:
    """In groups of 32 the ranges alone, which look at weights before the sweep moves them, were worse than GPTQ's."""
    rng = np.random.default_rng(seed)
    weight, hessian = rng.standard_normal((12, 64)).astype(np.float32), moments(64)
    format = parse_format(f"int{width}-g32")
    if mixing:
        names = ("sign-g32", "int2-g32", "int3-g32", "int4-g32")
        format = mixed("column:32", tuple(parse_format(n) for n in names), rng.integers(0, 4, 2))
    told, h = {"name": "w", "hessian": hessian, "gain": False, "order": order}, damped(hessian.astype(np.float64), 0.01)
    plain, contested = (
        row_errors(weight, quantize(QUANTIZER, weight, format, **told, **more), h) for more in ({"steps": 0}, {})
    )
    assert (contested <= plain * (1 + 1e-6)).all()
    assert contested.sum() < plain.sum() or mixing


def test_the_gain_makes_rows_answer_as_loudly_as_before() -> None:
    rng = np.random.default_rng(7)
    weight, hessian = rng.standard_normal((16, 64)).astype(np.float32), moments(64)
    h = damped(hessian.astype(np.float64), 0.01)
    for gain, worst in ((False, 1.0), (True, 2e-3)):
        made = QUANTIZER.quantize(weight, parse_format("int2-g32"), hessian=hessian, gain=gain).dequantize()
        along = np.einsum("ri,ij,rj->r", weight, h, made) / np.einsum("ri,ij,rj->r", weight, h, weight)
        assert np.abs(along - 1).max() < worst
        assert (np.abs(along - 1).max() > 0.01) is not gain


@pytest.mark.parametrize("cut", ["column:16", "group"])
def test_blocks_of_several_widths_beat_rounding(cut: str) -> None:
    weight, hessian = np.random.default_rng(3).standard_normal((48, 32)).astype(np.float32), moments(32)
    parts = 2 if cut == "column:16" else 96
    format = mixed(cut, MENU, np.random.default_rng(4).integers(0, 3, parts))
    gptq, nearest = (
        error(weight, quantize(QUANTIZERS.load(name), weight, format, name="w", hessian=hessian).dequantize(), hessian)
        for name in ("sqc", "rtn")
    )
    assert gptq < 0.85 * nearest


def test_bad_settings_are_refused() -> None:
    weight, hessian = np.ones((4, 16), np.float32), moments(16)
    for settings_ in ({"lam": 0.0}, {"lam": "much"}, {"steps": -1}, {"reach": 1.5}, {"order": "random"}, {"gain": 1}):
        with pytest.raises(InvalidInput):
            QUANTIZER.quantize(weight, parse_format("int2-g16"), hessian=hessian, **settings_)
    uneven = mixed("column:16", tuple(parse_format(n) for n in ("int2-g16", "int3-g8")), np.array([0, 1]))
    with pytest.raises(Unsupported, match="one group size"):
        quantize(QUANTIZER, np.ones((4, 32), np.float32), uneven, name="w", hessian=moments(32))
