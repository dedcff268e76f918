"""Metrics of publications, each against a small float64 reference written from the formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput, Unsupported
from bitwright.core.formats import parse_format
from sensitivity.base import ScoringTask, silent
from sensitivity.data import Data
from sensitivity.deltas import Deltas, unit_weight
from sensitivity.linearity import LEVELS, RANGE, slopes, squares
from sensitivity.routing import outlier_scores, watch
from sensitivity.runner import Runner, load_runner
from sensitivity.salience import block_losses
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import DATA, Opened, calibrated

FORMATS = ("int2-g32", "int4-g32")
Floats = NDArray[np.float64]


def _task(opened: Opened, data: Data | None) -> ScoringTask:
    formats = tuple(parse_format(name) for name in FORMATS)
    return ScoringTask(*opened, formats, Deltas(*opened, formats, "rtn"), data, 0, 2, {}, silent)


def _inputs(runner: Runner, data: Data) -> dict[str, Floats]:
    """(tokens, in) inputs of every linear module, by parameter name."""
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in runner.model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: seen.setdefault(f"{name}.weight", []).append(inputs[0])
            )
    runner.output(data)
    return {name: torch.cat(xs).reshape(-1, xs[0].shape[-1]).double().numpy() for name, xs in seen.items()}


def test_salience_is_the_cost_after_compensation(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    data = DATA["llama"]()
    runner = load_runner(source, inventory)
    inputs = _inputs(runner, data)
    task = _task(tiny["llama"], data)
    table = score(source, inventory, FORMATS, metric="salience", calibration=calibrated(data))
    blocks = block_losses(task, 16)
    for number, unit in enumerate(inventory.units):
        x = inputs[runner.slices[unit.name].parameter]
        h = 2 * x.T @ x / len(x)
        h += 0.01 * np.diag(h).mean() * np.eye(len(h))
        # U'U = H^-1 by elimination from the last input: 1 / U_jj^2 is the Schur complement of the inputs from j on.
        costs = np.array([1 / np.linalg.inv(h[j:, j:])[0, 0] for j in range(len(h))])
        errors = task.deltas.stack(number).astype(np.float64)
        np.testing.assert_allclose(table.loss[number], (errors**2 * costs).sum((1, 2)), rtol=1e-4)
        salience, losses = blocks[unit.name]
        np.testing.assert_allclose(losses.sum(axis=0), table.loss[number], rtol=1e-6)
        weight = unit_weight(source, unit).astype(np.float64)
        assert salience[0] == pytest.approx((weight[:, :16] ** 2 * costs[:16]).mean(), rel=1e-4)


@pytest.mark.parametrize("granularity", ["column:16", "group", "row:3"])
def test_salience_of_parts_adds_up_to_that_of_the_unit(tiny: dict[str, Opened], granularity: str) -> None:
    formats, data = ("int2-g16", "int4-g16"), calibrated(DATA["llama"]())
    whole, parts = (
        score(*tiny["llama"], formats, metric="salience", calibration=data, granularity=g)
        for g in ("tensor", granularity)
    )
    np.testing.assert_allclose(parts.by_unit().loss, whole.loss, rtol=1e-9)
    if granularity == "column:16":
        task = replace(_task(tiny["llama"], DATA["llama"]()), formats=tuple(map(parse_format, formats)))
        task = replace(task, deltas=Deltas(*tiny["llama"], task.formats, "rtn"))
        blocks = np.concatenate([losses for _, losses in block_losses(task, 16).values()])
        np.testing.assert_allclose(parts.loss, blocks, rtol=1e-9)


def test_moe_is_use_times_block_error(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["mixtral"]
    data = DATA["mixtral"]()
    runner = load_runner(source, inventory)
    powers = {"alpha": 1.0, "beta": 2.0, "gamma": 2.0}
    table = score(source, inventory, FORMATS, metric="moe", calibration=calibrated(data), options=powers)
    task = _task(tiny["mixtral"], data)
    modules = dict(runner.model.named_modules())
    for block in watch(runner, data):
        module = modules[block.module]
        inputs = block.inputs[None]
        logits = inputs[0].double() @ module.gate.weight.double().T
        p = torch.softmax(logits, -1)
        mine = torch.zeros_like(p)
        for token in range(len(p)):
            for expert in p[token].topk(2).indices:
                mine[token, expert] = 1
        phi, weight = mine.sum(0) / mine.sum(), (p * mine).sum(0) / (p * mine).sum()
        with torch.inference_mode():
            original = module(inputs).double()
            for expert, units in block.experts.items():
                for unit in units:
                    spec = inventory.units[unit]
                    for column, error in enumerate(task.deltas.stack(unit)):
                        with runner.replaced({spec.name: unit_weight(source, spec) + error}):
                            eps = (module(inputs).double() - original).norm() / original.norm()
                        if spec.name not in table.provenance["unmeasured"]:
                            wanted = float(phi[expert] * weight[expert] ** 2 * eps**2)
                            assert table.loss[unit, column] == pytest.approx(wanted, rel=1e-3, abs=1e-12)
        np.testing.assert_allclose(table.provenance["parameters"]["frequency"][block.module], phi, rtol=1e-6)
    assert (table.loss > 0).all()


def test_moe_refuses_dense_models_and_bad_exponents(tiny: dict[str, Opened]) -> None:
    with pytest.raises(Unsupported, match="no experts"):
        score(*tiny["llama"], FORMATS, metric="moe", calibration=calibrated(DATA["llama"]()))
    with pytest.raises(InvalidInput, match="gamma"):
        score(*tiny["mixtral"], FORMATS, metric="moe", calibration=calibrated(DATA["mixtral"]()), options={"gamma": 9})


def test_a_planted_outlier_ranks_first() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((20, 30)).astype(np.float32) for _ in range(4)]
    weights[2][3, 5] = 50.0
    scores = outlier_scores(weights)
    assert scores.argmax() == 2
    np.testing.assert_allclose(outlier_scores([-3 * w for w in weights]), scores, rtol=1e-5)
    assert outlier_scores([np.zeros((2, 2), np.float32)])[0] == 1.0


def test_slopes_are_least_squares_through_the_origin() -> None:
    levels = squares(LEVELS)
    alpha, error, fit = slopes(levels, np.stack([3 * levels, 0.5 * levels]))
    np.testing.assert_allclose(alpha, [3, 0.5])
    np.testing.assert_allclose(error, 0, atol=1e-12)
    np.testing.assert_allclose(fit, 1)
    bent = slopes(levels, (3 * levels + 40 * levels**2)[None])
    assert bent[0][0] > 3
    assert bent[1][0] > 0


def test_linearity_needs_no_data_and_has_one_slope_a_unit(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    table = score(source, inventory, FORMATS, metric="linearity", options={"tokens": 128})
    energy = Deltas(source, inventory, tuple(parse_format(f) for f in FORMATS), "rtn").energies()
    power = np.array([(unit_weight(source, unit).astype(np.float64) ** 2).sum() for unit in inventory.units])
    alpha = table.loss / (energy / power[:, None])
    np.testing.assert_allclose(alpha[:, 0], alpha[:, 1], rtol=1e-9)
    assert table.provenance["calibration"] is None
    assert 0 <= table.provenance["parameters"]["r2_above_0.9"] <= 1
    with pytest.raises(InvalidInput, match="positive count"):
        score(source, inventory, FORMATS, metric="linearity", options={"tokens": 0})


def test_levels_lie_evenly_in_the_errors_of_five_to_three_bits() -> None:
    for count in (4, 15):
        found = squares(count)
        assert len(found) == count
        np.testing.assert_allclose(found[[0, -1]], np.square(RANGE))
        np.testing.assert_allclose(np.diff(np.sqrt(found), 2), 0, atol=1e-12)


def test_the_constants_of_grids_stand_for_what_is_measured(tiny: dict[str, Opened]) -> None:
    """The paper's way (option distortion) and the measured one: within a fifth for rows of 32 numbers."""
    source, inventory = tiny["llama"]
    formats, options = ("higgs-p2-n16", "higgs-p2-n256", "fp16"), {"tokens": 64, "levels": 1}
    measured = score(source, inventory, formats, metric="linearity", options=options).loss
    constant = score(source, inventory, formats, metric="linearity", options={**options, "distortion": "grid"}).loss
    np.testing.assert_allclose(constant[:, :2], measured[:, :2], rtol=0.2)
    assert (constant[:, 2] == 0).all()
    for wrong in ({"distortion": "guess"}, {"distortion": "grid"}, {"levels": 65}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            score(source, inventory, FORMATS, metric="linearity", options=wrong)
