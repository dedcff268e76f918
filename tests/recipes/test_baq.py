"""BAQ: golden values of research/01, its predictions against runs of GPTQ, and every granularity end to end."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import solvers
from bitwright.core.formats import MixedFormat, parse_format
from bitwright.core.mixed_format import mixed, part_bytes
from bitwright.core.plan import Plan, plan_from_json
from bitwright.core.problem import Limit, Problem, Resource
from quantizers.gptq import Gptq
from sensitivity.gptq_loss import EXPONENT, law, part_losses
from tests.steps.bench import Bench

#: Half bits about 3 and about 4, eight of them as one matrix can hold.
MENUS = {
    3: ("int-l3", "int2", "int-l6", "int3", "int-l11", "int4", "int-l23", "int5"),
    4: ("int-l6", "int3", "int-l11", "int4", "int-l23", "int5", "int-l45", "int6"),
}
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def allotted(losses: Floats, levels: Floats, mean: float, reference: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The closed form's choice at a mean rate, rates in thousandths of a bit."""
    rates = np.round(1000 * np.log2(levels)).astype(np.int64)
    costs = np.tile(rates, (len(losses), 1))
    limit = Limit("bits", int(1000 * mean * len(losses)))
    problem = Problem(law(losses, reference, levels, EXPONENT), (Resource("bits", costs),), (limit,))
    return solvers.solve(problem, "closed-form").choice


def test_whole_bits_of_the_golden_losses_cost_what_the_optimum_costs() -> None:
    c, bits = np.array([1.0, 4.0, 16.0, 64.0]), np.arange(7)
    problem = Problem(
        c[:, None] * 4.0 ** -bits[None, :], (Resource("bits", np.tile(bits, (4, 1))),), (Limit("bits", 8),)
    )
    assert solvers.solve(problem, "closed-form").loss == pytest.approx(2.5)
    assert math.fsum(c * 4.0**-2) == pytest.approx(5.3125)


def outliers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(weights, second moments): 256 correlated inputs of 4096 tokens, four of them outlier channels (research/01)."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((4096, 256)) @ (np.eye(256) + 0.06 * rng.standard_normal((256, 256)))
    inputs[:, rng.choice(256, 4, replace=False)] *= 10
    inputs *= rng.lognormal(0, 0.7, 256)
    return rng.standard_normal((256, 256)).astype(np.float32), (inputs.T @ inputs / 2048).astype(np.float32)


@pytest.mark.parametrize("bits", [3, 4])
def test_the_ratio_of_losses_is_the_predicted_one(bits: int) -> None:
    """Within 15 % of GM / AM, and the mean rate within 2 % of the reference, over three seeds."""
    menu = tuple(parse_format(f"{name}-channel") for name in MENUS[bits])
    levels = np.array([float(format.levels) for format in menu])  # type: ignore[attr-defined]
    for seed in range(3):
        weight, hessian = outliers(seed)
        first = part_losses(weight, hessian, parse_format(f"int{bits}-channel"), "column", Gptq(), "w")
        gain = math.exp(np.log(first).mean()) / first.mean()
        choice = allotted(first, levels, bits, 1 << bits)
        assert np.log2(levels)[choice].mean() == pytest.approx(bits, rel=0.02)
        second = np.zeros(weight.shape)
        Gptq().quantize_mixed(weight, mixed("column", menu, choice), hessian=hessian, losses=second)
        assert second.sum() / first.sum() == pytest.approx(gain, rel=0.15)
        assert np.log2(second.sum(axis=0)).std() < 0.5 * np.log2(first).std()


def test_columns_that_are_alike_get_the_uniform_plan() -> None:
    rng = np.random.default_rng(0)
    one = np.sort(rng.standard_normal(96)).astype(np.float32)
    weight = np.stack([one] * 40, axis=1)
    losses = part_losses(weight, np.eye(40, dtype=np.float32), parse_format("int3-channel"), "column", Gptq(), "w")
    assert np.ptp(losses) <= 1e-9 * losses.mean()
    menu = tuple(parse_format(f"{name}-channel") for name in MENUS[3])
    levels = np.array([float(format.levels) for format in menu])  # type: ignore[attr-defined]
    costs = part_bytes("column", weight.shape, menu)
    problem = Problem(
        law(losses, 8, levels, EXPONENT), (Resource("bytes", costs),), (Limit("bytes", int(costs[:, 3].sum())),)
    )
    assert (solvers.solve(problem, "closed-form").choice == 3).all()


def test_losses_are_those_of_the_sweep(tmp_path: Path) -> None:
    """1/2 sum of ((w - q) / U_jj)^2, summed over all weights, is half the output error tr(E H E') of GPTQ."""
    weight, hessian = outliers(5)
    losses = np.zeros(weight.shape)
    made = Gptq().quantize(weight, parse_format("int3-g64"), hessian=hessian, losses=losses, damping=0.0)
    error = made.dequantize().astype(np.float64) - weight
    assert losses.sum() == pytest.approx(
        0.5 * np.einsum("ij,jk,ik->", error, hessian.astype(np.float64), error), rel=1e-3
    )


def planned(bench: Bench, model: str, text: str | None, budget: str, **more: object) -> Plan:
    result = bench.run("plan", model=model, recipe=more.pop("recipe", "baq"), budget=budget, calibration=text, **more)
    assert result["feasible"], result["infeasible"]
    return plan_from_json(result["plan"])


@pytest.mark.parametrize(
    ("granularity", "formats"),
    [
        ("column", None),
        ("group", ["int2-g16", "int3-g16", "int4-g16", "int5-g16"]),
        ("column:16", ["int2-g16", "int3-g16", "int4-g16", "int5-g16"]),
        ("row", ["int2-g16", "int3-g16", "int4-g16", "int5-g16"]),
        ("tensor", ["int2-g16", "int3-g16", "int4-g16", "int5-g16"]),
    ],
)
def test_every_granularity_is_carried_out_and_counted(
    bench: Bench, models: dict[str, str], tokens: str, tmp_path: Path, granularity: str, formats: list[str] | None
) -> None:
    small = {"calibration_tokens": 512, "confirm": False}
    plan = planned(
        bench, models["llama"], tokens, "4.6bpw", granularity=granularity, formats=formats, to="packed",
        out=tmp_path / "checkpoint", **small,
    )  # fmt: skip
    mixing = [parse_format(unit.format) for unit in plan.units]
    assert len({f.name for f in mixing}) > 1
    assert plan.totals.bits_per_weight <= 4.6
    assert sum(unit.bytes for unit in plan.units) == plan.totals.bytes
    assert all(isinstance(f, MixedFormat) == (granularity != "tensor") for f in mixing)


@pytest.mark.parametrize(("budget", "recipe"), [("2.1bpw", "baq"), ("3.1bpw", "baq")])
def test_on_a_trained_model_it_beats_uniform_gptq_in_the_same_bytes(
    bench: Bench, models_dir: Path, budget: str, recipe: str
) -> None:
    """Short form of the table of docs/recipes/baq.md: same quantizer, same cut, one seed."""
    few = {"calibration_tokens": 4096, "confirm_tokens": 4096}
    plan = planned(bench, str(models_dir / "llama-stdlib"), None, budget, recipe=recipe, **few)
    assert plan.measured is not None
    assert plan.measured.fallback is None
    uniform = plan.measured.extra["feasible_uniform"]
    assert uniform["bytes"] >= 0.99 * plan.totals.bytes
    assert plan.measured.kl < 0.95 * uniform["kl"]
    rates = [float(parse_format(unit.format).bits) for unit in plan.units]
    assert max(rates) - min(rates) < 0.15 * np.mean(rates)
