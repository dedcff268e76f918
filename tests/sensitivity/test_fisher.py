"""`fisher` against explicit per-token loops in float64, and against measured KL of small perturbations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitwright.core.formats import Format, parse_format
from sensitivity.data import Data
from sensitivity.deltas import Deltas
from sensitivity.evaluate import measure
from sensitivity.pooling import as_measured
from sensitivity.runner import Runner, load_runner
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import DATA, Opened, calibrated

FORMATS = ("int2-g32", "int4-sym-channel")


@dataclass(frozen=True)
class Changed:
    weight: NDArray[np.float32]

    def dequantize(self) -> NDArray[np.float32]:
        return self.weight


@dataclass(frozen=True)
class SmallNoise:
    """Stands for a quantizer with tiny errors: W + 2^-size x noise, with a noise of its own for each unit."""

    scale: float
    name: str = "noise"
    only: str = ""

    def quantize(self, weight: NDArray[np.float32], format: Format, *, name: str = "", **context: object) -> Changed:
        rng = np.random.default_rng(len(name) + weight.size)
        noise = rng.standard_normal(weight.shape).astype(np.float32) * float(weight.std()) * self.scale
        return Changed(weight + (noise if self.only in name else 0))


def _labels(runner: Runner, data: Data, row: int, samples: int) -> list[tuple[torch.Tensor, float]]:
    """The label sets (positions,) and weights that the metric draws for an item, read off its directions."""
    one = data.take(np.array([row]))
    with torch.no_grad():
        output = runner.output(one)
    found = []
    for direction in runner.head.directions(output, np.array([row]), samples, 0):
        onehot = direction.gradient + torch.softmax(output, -1)
        assert torch.allclose(onehot.sum(-1), torch.ones(()), atol=1e-5)
        found.append((onehot.argmax(-1)[0], float(direction.weight[0])))
    return found


def _oracle(opened: Opened, data: Data, samples: int) -> NDArray[np.float64]:
    """losses (units, formats) from the definition: float64, one item, one label set, one position at a time."""
    source, inventory = opened
    runner = load_runner(source, inventory)
    labels = [_labels(runner, data, row, samples) for row in range(data.items)]
    deltas = Deltas(source, inventory, tuple(parse_format(f) for f in FORMATS), "rtn")
    model = runner.model.double().requires_grad_(True)
    double = replace(runner, model=model)
    parameters = double.parameters
    total = np.zeros((len(inventory.units), len(FORMATS)))
    for row in range(data.items):
        one = data.take(np.array([row]))
        inputs = {
            k: torch.from_numpy(v).double() if v.dtype.kind == "f" else torch.from_numpy(v)
            for k, v in one.inputs.items()
        }
        log_p = torch.log_softmax(model(**inputs).logits[0], -1)
        log_p = log_p if log_p.ndim == 2 else log_p[None]
        for drawn, weight in labels[row]:
            sums = dict.fromkeys(parameters, 0.0)
            for position, label in enumerate(drawn.reshape(-1)):
                grads = torch.autograd.grad(
                    log_p[position, label], list(parameters.values()), retain_graph=True, allow_unused=True
                )
                for name, grad in zip(parameters, grads, strict=True):
                    sums[name] = sums[name] + (0.0 if grad is None else grad)
            for number, unit in enumerate(inventory.units):
                place = runner.slices[unit.name]
                grad = place.view({place.parameter: torch.nn.Parameter(sums[place.parameter])})
                scores = (torch.from_numpy(deltas.stack(number)).double() * grad).sum((1, 2))
                total[number] += 0.5 * weight * scores.square().numpy() / len(log_p)
    return total / data.items


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "vit", "opt", "deepseek", "gpt-neox"])
def test_equals_the_definition(tiny: dict[str, Opened], name: str) -> None:
    data = DATA[name]()
    samples = 64 if name == "vit" else 2
    table = score(*tiny[name], FORMATS, calibration=calibrated(data), samples=samples)
    expected = _oracle(tiny[name], data, samples)
    unmeasured = [u.name in table.provenance["unmeasured"] for u in tiny[name][1].units]
    assert expected[unmeasured].max(initial=0) == 0
    measured = ~np.array(unmeasured)
    np.testing.assert_allclose(
        as_measured(table).loss[measured], expected[measured], rtol=2e-3, atol=1e-9 * expected.max()
    )
    assert (table.loss > 0).all()


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_predicts_the_divergence_of_small_changes(tiny: dict[str, Opened], name: str) -> None:
    """With every class (or direction) enumerated nothing is sampled: predicted equals measured to third order."""
    source, inventory = tiny[name]
    data = DATA[name]()
    noise = SmallNoise(3e-3)
    table = score(source, inventory, ("bf16",), calibration=calibrated(data), samples=64, quantizer=noise)
    for number in (0, len(inventory.units) // 2, len(inventory.units) - 1):
        only = SmallNoise(3e-3, only=inventory.units[number].name)
        formats = ["bf16"] * len(inventory.units)
        quality = measure(source, inventory, {"changed": formats}, data, quantizer=only)["changed"]
        assert table.loss_unit == quality.unit
        assert table.loss[number, 0] == pytest.approx(quality.kl, rel=0.05)


def test_sampled_labels_predict_the_divergence_of_language_models(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    data = DATA["llama"]()
    noise = SmallNoise(3e-3, only="layers.1.mlp.up_proj")
    table = score(source, inventory, ("bf16",), calibration=calibrated(data), samples=300, quantizer=noise)
    quality = measure(source, inventory, {"c": ["bf16"] * len(inventory.units)}, data, quantizer=noise)["c"]
    number = next(i for i, unit in enumerate(inventory.units) if noise.only in unit.name)
    assert table.loss.sum() == table.loss[number, 0]
    assert table.loss[number, 0] == pytest.approx(quality.kl, rel=0.2)


def test_batches_do_not_change_the_table(tiny: dict[str, Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    together = {n: score(*tiny[n], FORMATS, calibration=calibrated(DATA[n]())).loss for n in ("vit", "bert", "llama")}
    monkeypatch.setattr("sensitivity.passes.BATCH_ITEMS", 1)
    for name, loss in together.items():
        alone = score(*tiny[name], FORMATS, calibration=calibrated(DATA[name]())).loss
        np.testing.assert_allclose(loss, alone, rtol=1e-3)


def test_replay_and_gradient_agree(tiny: dict[str, Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for memory in (-1000, 1000):
        monkeypatch.setattr("sensitivity.directional.MEMORY", memory)
        losses.append(score(*tiny["llama"], FORMATS, calibration=calibrated(DATA["llama"]())).loss)
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_same_seed_same_bytes_other_seed_other_labels(tiny: dict[str, Opened]) -> None:
    calibration = calibrated(DATA["llama"]())
    first, again, other = (
        score(*tiny["llama"], FORMATS, calibration=calibration, seed=seed, samples=1) for seed in (3, 3, 4)
    )
    assert first.digest == again.digest
    assert not np.allclose(first.loss, other.loss)


def test_experts_that_no_token_reaches_get_a_stated_fallback(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["mixtral"]
    one = Data("tokens", {"input_ids": np.array([[5, 5]])})
    table = score(source, inventory, FORMATS, calibration=calibrated(one))
    unmeasured = table.provenance["unmeasured"]
    assert unmeasured
    assert any("not reached" in warning for warning in table.provenance["warnings"])
    rows = [unit.name in unmeasured for unit in inventory.units]
    assert (table.loss[rows] > 0).all()
    assert np.isnan(table.stderr[rows]).all()
    assert np.isfinite(table.stderr[~np.array(rows)]).all()


def test_standard_error_is_the_spread_over_items(tiny: dict[str, Opened]) -> None:
    """stderr^2 = variance of single-item losses / items."""
    source, inventory = tiny["vit"]
    data = DATA["vit"]()
    alone = [calibrated(data.take(np.array([i]))) for i in range(data.items)]
    singles = np.array([as_measured(score(source, inventory, FORMATS, calibration=one)).loss for one in alone])
    table = score(source, inventory, FORMATS, calibration=calibrated(data))
    np.testing.assert_allclose(as_measured(table).loss, singles.mean(0), rtol=1e-3)
    np.testing.assert_allclose(as_measured(table).stderr, singles.std(0, ddof=1) / np.sqrt(data.items), rtol=1e-2)
