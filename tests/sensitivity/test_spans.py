"""Sequences cut into spans: against directional derivatives in float64, and against sums over whole sequences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.errors import InvalidInput
from bitwright.core.formats import parse_format
from sensitivity.capture import Call
from sensitivity.deltas import Deltas
from sensitivity.heads import HEADS
from sensitivity.pooling import as_measured
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from sensitivity.spans import SCORES, SPAN, WHOLE, Spans, default_samples, laid_out
from tests.sensitivity.test_fisher import _labels
from tests.sensitivity.tiny_models import DATA, Opened, calibrated, token_data

FORMATS = ("int2-g32", "int4-sym-channel")


def test_a_span_is_what_an_error_at_its_positions_does_to_the_labels(tiny: dict[str, Opened]) -> None:
    """Oracle: d/de of sum_t log p(y_t) when a layer's output grows by e dW x_t at the span's positions alone."""
    source, inventory = tiny["llama"]
    data, length = token_data(2, 9), 4
    runner = load_runner(source, inventory)
    labels = [_labels(runner, data, row, 1) for row in range(data.items)]
    deltas = Deltas(source, inventory, tuple(parse_format(name) for name in FORMATS), "rtn")
    model = replace(runner, model=runner.model.double()).model
    modules, expected = dict(model.named_modules()), np.zeros((len(inventory.units), len(FORMATS)))
    for row in range(data.items):
        ids = torch.from_numpy(data.inputs["input_ids"][row : row + 1])
        ((drawn, weight),) = labels[row]
        for number, unit in enumerate(inventory.units):
            errors = torch.from_numpy(deltas.stack(number)).double()
            amounts = torch.zeros(len(FORMATS), 3, 1, dtype=torch.float64, requires_grad=True)

            def grown(module, inputs, output, errors=errors, amounts=amounts):
                change = torch.stack([inputs[0][0] @ error.T for error in errors])
                spread = amounts.expand(-1, -1, length).flatten(1)[:, : change.shape[1], None]
                return output + (spread * change).sum(0)

            handle = modules[unit.name.removesuffix(".weight")].register_forward_hook(grown)
            likelihood = torch.log_softmax(model(ids).logits[0], -1).gather(-1, drawn[:, None]).sum()
            handle.remove()
            (grads,) = torch.autograd.grad(likelihood, amounts)
            expected[number] += 0.5 * weight * grads[..., 0].square().sum(1).numpy() / ids.shape[1] / data.items
    table = score(source, inventory, FORMATS, calibration=calibrated(data), samples=1, options={"span": length})
    np.testing.assert_allclose(as_measured(table).loss, expected, rtol=2e-3, atol=1e-9)
    assert table.provenance["parameters"]["spans_an_item"] == 3


@pytest.mark.parametrize("name", ["llama", "mixtral", "deepseek"])
def test_spans_add_up_to_the_sequence(tiny: dict[str, Opened], name: str) -> None:
    """Signed scores of the spans of a sequence, summed, are its own; experts are told their tokens apart."""
    data = DATA[name]()
    asked = {"calibration": calibrated(data), "samples": 2}
    whole, cut = (score(*tiny[name], FORMATS, **asked, options={"span": span}) for span in (0, 3))
    count = -(-data.inputs["input_ids"].shape[1] // 3)
    signed = cut.extras["signed"].reshape(data.items, 2, count, *whole.loss.shape).sum(2) / np.sqrt(count)
    scale = np.abs(signed).max()
    expected = whole.extras["signed"].reshape(signed.shape)
    np.testing.assert_allclose(signed, expected, rtol=1e-3, atol=1e-5 * scale)
    measured = np.array([unit.name not in cut.provenance["unmeasured"] for unit in tiny[name][1].units])
    squares = 0.5 * (cut.extras["signed"].astype(np.float64) ** 2).mean(axis=0)
    np.testing.assert_allclose(squares[measured], as_measured(cut).loss[measured], rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_block_by_block_cuts_alike(tiny: dict[str, Opened], name: str) -> None:
    asked = {"calibration": calibrated(DATA[name]()), "samples": 2, "seed": 3}
    whole = score(*tiny[name], FORMATS, **asked, options={"span": 3})
    found = score(*tiny[name], FORMATS, **asked, options={"span": 3, "stream": True})
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-4, atol=1e-9)
    scale = np.abs(whole.extras["signed"]).max()
    np.testing.assert_allclose(found.extras["signed"], whole.extras["signed"], rtol=1e-3, atol=1e-4 * scale)
    assert found.provenance["samples"] == whole.provenance["samples"]
    assert found.provenance["parameters"]["span"] == whole.provenance["parameters"]["span"] == 3


@settings(max_examples=40, deadline=None)
@given(items=st.integers(1, 3), positions=st.integers(1, 9), length=st.integers(1, 4), data=st.data())
def test_an_experts_tokens_go_to_their_items_and_spans(items: int, positions: int, length: int, data) -> None:
    """Against a loop: rows of a subset of the tokens, summed by item and span."""
    spans = Spans(length, -(-positions // length))
    chosen = data.draw(st.lists(st.integers(0, items * positions - 1), min_size=1, unique=True))
    rows = torch.arange(2.0 * len(chosen)).reshape(-1, 2) + 1
    call = Call((), rows, rows, torch.tensor(chosen), items * positions)
    found = laid_out(call, items, positions, spans)
    assert found is not None
    expected = torch.zeros(items * spans.count, 2)
    for token, row in zip(chosen, rows, strict=True):
        expected[token // positions * spans.count + token % positions // length] += row
    assert torch.equal(found.inputs.sum(1), expected)
    assert torch.equal(found.lay(rows).sum(1), expected)
    sums = torch.zeros_like(expected)
    for some, grad, inputs in found.pieces(rows, 2):
        sums[some] = grad.sum(1)
        assert torch.equal(inputs * (grad != 0), grad)
    assert torch.equal(sums, expected)


def test_rows_of_unknown_positions_are_not_cut() -> None:
    rows = torch.ones(5, 2)
    assert laid_out(Call((), rows, rows), 1, 9, Spans(3, 3)) is None
    assert laid_out(Call((), rows, rows), 2, 9, WHOLE) is None
    assert laid_out(Call((), rows, rows), 1, 9, WHOLE) is not None


def test_label_sets_follow_the_scores_wanted() -> None:
    head, four = HEADS["causal-lm"], Spans(SPAN, 4)
    drawn = [default_samples(head, token_data(items, 256), four) for items in (1, 16, 32, SCORES // 4, 500)]
    assert drawn == [4, 4, 2, 1, 1]
    assert default_samples(head, token_data(500, 8), WHOLE) == head.default_samples


@pytest.mark.parametrize("span", [-1, 2.5, True, "64"])
def test_a_span_that_is_no_length_is_refused(tiny: dict[str, Opened], span: object) -> None:
    with pytest.raises(InvalidInput, match="span"):
        score(*tiny["llama"], FORMATS, calibration=calibrated(token_data(1, 5)), options={"span": span})
