"""The metrics that look at one layer at a time, against loops over positions with hooks of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput
from bitwright.core.formats import parse_format
from sensitivity.data import Data
from sensitivity.deltas import Deltas
from sensitivity.evaluate import measure
from sensitivity.pooling import as_measured
from sensitivity.runner import Runner, load_runner
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import DATA, Opened, calibrated

FORMATS = ("int2-g32", "int4-g32")


class _Hooks:
    """Inputs and outputs of every linear module, by parameter name."""

    def __init__(self, runner: Runner) -> None:
        self.seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, module in runner.model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(self._keep(f"{name}.weight"))
        for parameter in runner.model.parameters():
            parameter.requires_grad_(True)

    def _keep(self, name: str):
        def hook(module, inputs, output) -> None:
            output.retain_grad()
            self.seen[name] = (inputs[0], output)

        return hook


def _naive(opened: Opened, data: Data, metric: str) -> NDArray[np.float64]:
    source, inventory = opened
    runner = load_runner(source, inventory)
    hooks = _Hooks(runner)
    deltas = Deltas(source, inventory, tuple(parse_format(f) for f in FORMATS), "rtn")
    total = np.zeros((len(inventory.units), len(FORMATS)))
    for row in range(data.items):
        ids = torch.from_numpy(data.inputs["input_ids"][row : row + 1])
        one = data.take(np.array([row]))
        logits = runner.output(one)
        log_p = torch.log_softmax(logits, -1)[0]
        if metric == "fisher-token":
            directions = list(runner.head.directions(logits, np.array([row]), 2, 0))
            labels = [((d.gradient + logits.detach().softmax(-1))[0].argmax(-1), 0.5) for d in directions]
        else:
            labels = [(torch.cat([ids[0, 1:], torch.tensor([-1])]), 1.0)]
        for drawn, weight in labels:
            runner.model.zero_grad()
            for _, output in hooks.seen.values():
                output.grad = None
            sum(log_p[t, label] for t, label in enumerate(drawn) if label >= 0).backward(retain_graph=True)
            for number, unit in enumerate(inventory.units):
                inputs, output = hooks.seen[runner.slices[unit.name].parameter]
                for column, error in enumerate(torch.from_numpy(deltas.stack(number))):
                    for x, g in zip(inputs[0].detach(), output.grad[0], strict=True):
                        change = error @ x
                        value = {
                            "fisher-token": 0.5 * weight * float(change @ g) ** 2,
                            "grad-output": 0.5 * float((change.square() * g.square()).sum()),
                            "hessian": float(change.square().sum()),
                        }.get(metric, 0.0)
                        total[number, column] += value / len(drawn)
                    if metric == "taylor":
                        grad = runner.parameters[unit.name].grad
                        total[number, column] += float((grad * error).abs().sum()) / len(drawn)
    return total / data.items


@pytest.mark.parametrize("metric", ["fisher-token", "grad-output", "hessian", "taylor"])
def test_equals_loops_over_positions(tiny: dict[str, Opened], metric: str) -> None:
    data = DATA["llama"]()
    table = score(*tiny["llama"], FORMATS, metric=metric, calibration=calibrated(data), samples=2)
    np.testing.assert_allclose(table.loss, _naive(tiny["llama"], data, metric), rtol=1e-3)


def test_pooled_keeps_the_tokens_ratios_and_the_sequences_level(tiny: dict[str, Opened]) -> None:
    calibration = calibrated(DATA["llama"]())
    pooled, token, sequence = (
        as_measured(score(*tiny["llama"], FORMATS, metric=metric, calibration=calibration, samples=2)).loss
        for metric in ("fisher-pooled", "fisher-token", "fisher")
    )
    np.testing.assert_allclose(pooled[:, 0] / pooled[:, 1], token[:, 0] / token[:, 1], rtol=1e-3)
    np.testing.assert_allclose(np.log(pooled).mean(1), np.log(sequence).mean(1), rtol=1e-3)


def test_probe_is_the_measured_divergence_of_one_unit(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    data = DATA["llama"]()
    table = score(source, inventory, FORMATS, metric="kl-probe", calibration=calibrated(data))

    class OnlyOne:
        name = "one"

        def quantize(self, weight, format, *, name="", **context):
            from quantizers.rtn import QUANTIZER

            kept = parse_format("int4-g32" if name == inventory.units[4].name else "fp16")
            return QUANTIZER.quantize(weight, kept)

    formats = ["int4-g32"] * len(inventory.units)
    quality = measure(source, inventory, {"one": formats}, data, quantizer=OnlyOne())["one"]
    assert table.loss[4, 1] == pytest.approx(quality.kl, rel=1e-6)
    assert table.stderr[4, 1] == pytest.approx(quality.stderr, rel=1e-6)
    with pytest.raises(InvalidInput, match="positive count"):
        score(source, inventory, FORMATS, metric="kl-probe", calibration=calibrated(data), options={"tokens": "many"})


@pytest.mark.parametrize("name", ["mixtral", "vit", "bert", "gpt2"])
@pytest.mark.parametrize("metric", ["fisher-token", "fisher-pooled", "grad-output", "taylor", "hessian"])
def test_every_architecture(tiny: dict[str, Opened], name: str, metric: str) -> None:
    """GPT-2 uses no linears inside its blocks: these metrics cannot see it and must say so."""
    from bitwright.core.errors import Unsupported

    calibration = calibrated(DATA[name]())
    if name == "gpt2":
        with pytest.raises(Unsupported, match="linear layers"):
            score(*tiny[name], FORMATS, metric=metric, calibration=calibration, samples=2)
    else:
        table = score(*tiny[name], FORMATS, metric=metric, calibration=calibration, samples=2)
        assert (table.loss > 0).all()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("metric", "options"), [("kl-probe", {}), ("linearity", {"tokens": 2, "levels": 2})])
def test_probes_of_experts_that_saw_no_token_have_a_stated_loss(
    tiny: dict[str, Opened], metric: str, options: dict[str, Any], stream: bool
) -> None:
    """Regression: their KL was zero, and so was their loss: free to lose all bits."""
    source, inventory = tiny["mixtral"]
    few = DATA["mixtral"]().take(np.array([0]))
    short = type(few)(few.kind, {"input_ids": few.inputs["input_ids"][:, :2]})
    asked = {"metric": metric, "calibration": calibrated(short), "options": {**options, "stream": stream}}
    table = score(source, inventory, ("int2-g16", "int4-g16"), **asked)
    missing = set(table.provenance["unmeasured"])
    rows = [number for number, unit in enumerate(inventory.units) if unit.name in missing]
    assert any(inventory.units[row].expert is not None for row in rows)
    assert (table.loss > 0).all()
    assert np.isnan(table.stderr[rows]).all()
    assert np.isfinite(np.delete(table.stderr, rows, axis=0)).all()
