"""Baselines and relevance: each against a reference written from its formula; conservation at every operation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitwright.core.formats import parse_format
from sensitivity.base import ScoringTask, silent
from sensitivity.data import Data
from sensitivity.deltas import Deltas, unit_weight
from sensitivity.lrp import relevance_through
from sensitivity.pooling import as_measured
from sensitivity.relevance import Ledger, Propagation
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from sensitivity.spike import find_spikes, floors
from tests.sensitivity.tiny_models import DATA, Opened, calibrated

FORMATS = ("int2-g32", "int4-g32")
Floats = NDArray[np.float64]


def _task(opened: Opened, data: Data | None) -> ScoringTask:
    formats = tuple(parse_format(name) for name in FORMATS)
    return ScoringTask(*opened, formats, Deltas(*opened, formats, "rtn"), data, 0, 2, {}, silent)


class _Naive:
    """Inputs and sampled output gradients of every linear, item by item, with hooks and autograd."""

    def __init__(self, opened: Opened, data: Data) -> None:
        source, inventory = opened
        runner = load_runner(source, inventory)
        self.units = [runner.slices[unit.name].parameter for unit in inventory.units]
        seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, module in runner.model.named_modules():
            if isinstance(module, torch.nn.Linear):

                def hook(module, inputs, output, name=name) -> None:
                    output.retain_grad()
                    seen[f"{name}.weight"] = (inputs[0].detach(), output)

                module.register_forward_hook(hook)
        for parameter in runner.model.parameters():
            parameter.requires_grad_(True)
        #: name -> [(x (T, in), d (K, T, out))] an item
        self.items: dict[str, list[tuple[Floats, Floats]]] = {}
        self.positions = 0
        for row in range(data.items):
            logits = runner.output(data.take(np.array([row])))
            self.positions += logits.shape[1]
            gradients: dict[str, list[torch.Tensor]] = {}
            for direction in runner.head.directions(logits, np.array([row]), 2, 0):
                for _, output in seen.values():
                    output.grad = None
                logits.backward(direction.gradient, retain_graph=True)
                for name, (_, output) in seen.items():
                    gradients.setdefault(name, []).append(output.grad[0].clone())
            for name, (inputs, _) in seen.items():
                pair = (inputs[0].double().numpy(), torch.stack(gradients[name]).double().numpy())
                self.items.setdefault(name, []).append(pair)


@pytest.fixture(scope="module")
def naive(tiny: dict[str, Opened]) -> _Naive:
    return _Naive(tiny["llama"], DATA["llama"]())


@pytest.mark.parametrize("metric", ["kron", "hessian-trace", "awq-scale"])
def test_equals_the_formula(tiny: dict[str, Opened], naive: _Naive, metric: str) -> None:
    data = DATA["llama"]()
    table = score(*tiny["llama"], FORMATS, metric=metric, calibration=calibrated(data), samples=2)
    task = _task(tiny["llama"], data)
    for number, name in enumerate(naive.units):
        items = naive.items[name]
        errors = task.deltas.stack(number).astype(np.float64)
        tokens = sum(len(x) for x, _ in items)
        if metric == "kron":
            a = sum(x.T @ x for x, _ in items)
            g = sum(0.5 * d[k].T @ d[k] for _, d in items for k in range(2))
            wanted = [0.5 * np.trace(e @ a @ e.T @ g) / tokens / naive.positions for e in errors]
        elif metric == "hessian-trace":
            traces = [0.5 * ((d[k].T @ x) ** 2).sum() / len(x) for x, d in items for k in range(2)]
            wanted = [0.5 * np.sum(traces) / len(items) * (e**2).sum() / e.size for e in errors]
        else:
            size = sum(np.abs(x).sum(axis=0) for x, _ in items) / tokens
            wanted = [((size * e) ** 2).sum() for e in errors]
        np.testing.assert_allclose(table.loss[number], wanted, rtol=1e-3)


def test_kron_is_exact_for_one_token_and_one_label(tiny: dict[str, Opened]) -> None:
    data = Data("tokens", {"input_ids": np.array([[7]])})
    kron, fisher = (
        as_measured(score(*tiny["llama"], FORMATS, metric=metric, calibration=calibrated(data), samples=1)).loss
        for metric in ("kron", "fisher")
    )
    np.testing.assert_allclose(kron, fisher, rtol=1e-3, atol=1e-12)


def test_rate_distortion_does_not_see_scale(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    table = score(source, inventory, FORMATS, metric="rate-distortion")
    energy = Deltas(source, inventory, tuple(parse_format(f) for f in FORMATS), "rtn").energies()
    for number, unit in enumerate(inventory.units):
        power = (unit_weight(source, unit).astype(np.float64) ** 2).mean()
        np.testing.assert_allclose(table.loss[number], energy[number] / power, rtol=1e-9)


@pytest.mark.parametrize("name", ["llama", "mixtral", "vit", "bert"])
def test_relevance_is_conserved_at_every_operation(tiny: dict[str, Opened], name: str) -> None:
    runner = load_runner(*tiny[name])
    through, violations = relevance_through(runner, DATA[name]())
    assert {"linear", "softmax", "matmul", "norm"} <= set(violations)
    assert max(violations.values()) < 1e-4, violations
    assert through.sum() == pytest.approx(1.0)
    assert (through >= 0).all()


def test_a_linear_shares_relevance_by_its_positive_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 5, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    ledger = Ledger()
    with Propagation({}, ledger):
        y = torch.nn.functional.linear(x, weight, torch.ones(4, dtype=torch.float64))
    relevance = torch.rand(1, 3, 4, dtype=torch.float64, generator=generator)
    y.backward(relevance)
    wanted = torch.zeros(3, 5, dtype=torch.float64)
    for t in range(3):
        for o in range(4):
            parts = (x[0, t].detach() * weight[o]).clamp(min=0)
            wanted[t] += parts / parts.sum() * relevance[0, t, o]
    torch.testing.assert_close(x.grad[0], wanted, rtol=1e-10, atol=1e-12)
    assert ledger.violations["linear"] < 1e-12


def test_relevance_stops_at_an_operation_without_a_rule() -> None:
    from bitwright.core.errors import Unsupported

    x = torch.rand(2, 3, requires_grad=True)
    with Propagation({}, Ledger()), pytest.raises(Unsupported, match="cumsum"):
        torch.cumsum(x, 0)


def test_a_planted_spike_is_pinned_and_nothing_else(tiny: dict[str, Opened]) -> None:
    _, inventory = tiny["llama"]
    task = _task(tiny["llama"], DATA["llama"]())
    spikes = find_spikes(task)
    assert spikes.kappa.min() >= 1
    assert spikes.share.sum() == pytest.approx(1.0)
    pinned = np.zeros(len(inventory.units), np.bool_)
    pinned[3] = True
    allowed = floors(inventory, ("int2-g32", "int4-g32", "int8-g32"), pinned, 8.0)
    assert allowed[3].tolist() == [False, False, True]
    assert allowed[np.arange(len(pinned)) != 3].all()
    assert floors(inventory, FORMATS, pinned, 16.0)[3].tolist() == [False, True]


def test_the_spiked_layer_is_the_one_that_is_pinned(tiny: dict[str, Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    """One token's state made huge in one channel: the layers that read it are pinned, and no other."""
    import sensitivity.local as local

    _, inventory = tiny["llama"]

    def spiked(source, inventory):
        runner = load_runner(source, inventory)

        def hook(module, inputs, output) -> torch.Tensor:
            spike = torch.zeros_like(output)
            spike[:, 0, 5] = 300.0 * float(output.detach().abs().max())
            return output + spike

        runner.model.model.layers[1].post_attention_layernorm.register_forward_hook(hook)
        return runner

    data = Data("tokens", {"input_ids": np.random.default_rng(0).integers(0, 50, (2, 60))})
    before = find_spikes(_task(tiny["llama"], data))
    monkeypatch.setattr(local, "load_runner", spiked)
    after = find_spikes(_task(tiny["llama"], data))
    readers = {u.name for u in inventory.units if u.layer == 1 and u.module in ("mlp.gate_proj", "mlp.up_proj")}
    new = {u.name for u, a, b in zip(inventory.units, after.pinned(), before.pinned(), strict=True) if a and not b}
    assert not before.pinned().any()
    assert readers <= new <= readers | {"model.layers.1.mlp.down_proj.weight"}
