"""Signed scores <G_s, dW>: what quantizing a unit does to one item's output along one direction, to first order.

With x_t the inputs and d_t the output gradients of a linear layer, <G, dW> = sum_t d_t . dW x_t over the positions of
one item. Two ways to the same number, the cheaper one taken for each layer (K directions, T positions, F formats):

    gradient   G = sum_t d_t x_t', then an inner product with each dW:   K (T + F + MEMORY) out in
    replay     y_f = dW_f x_t once, then an inner product with each d:   F T out in
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bitwright.core.errors import NotFinite, Unsupported
from sensitivity.capture import Call, Listener
from sensitivity.deltas import Deltas
from sensitivity.on_device import all_finite
from sensitivity.runner import Runner
from sensitivity.spans import Spans, laid_out

#: Writing a G and reading it again, in multiplications a number: 16 bytes at about 8 GB/s, against 16 G
#: multiplications/s a core. For short sentences (T = 30, K = 4, F = 6) that makes replay the cheaper way.
MEMORY = 32
#: Numbers of weight gradients that are made before they are used: 1 MiB, which stays in a core's cache.
CACHED = 1 << 18
#: Weight gradients that are multiplied by the errors together at least; of large layers, some rows of each. With fewer,
#: errors are read so often that it takes up to twice as long.
TOGETHER = 4


def replays(formats: int, positions: int, directions: int) -> bool:
    """Whether the second way is the cheaper one. positions: of an item, or of a span where those are scored apart."""
    return formats * positions < directions * (positions + formats + MEMORY)


class DirectionalScores:
    """Scores of one batch: the calls of its forward pass, scored along one direction after another."""

    def __init__(
        self, runner: Runner, listener: Listener, deltas: Deltas, calls: Sequence[Call], items: int, positions: int,
        directions: int, spans: Spans,
    ) -> None:  # fmt: skip
        self._runner = runner
        self._listener = listener
        self._deltas = deltas
        self._calls = calls
        self._items = items
        self._spans = spans
        self._directions = directions
        self._replayed: dict[tuple[int, int], torch.Tensor] = {}
        self._laid = [laid_out(call, items, positions, spans) for call in calls]

    def along(self, output: torch.Tensor, gradient: torch.Tensor, *, last: bool) -> torch.Tensor:
        """float64 (spans, items, units, formats) signed scores along d(objective)/d(output) = `gradient`."""
        units, formats = len(self._deltas.inventory.units), len(self._deltas.formats)
        scores = torch.zeros(self._items * self._spans.count, units, formats, dtype=torch.float64, device=output.device)
        gradients, others = differentiate(self._runner, self._listener, self._calls, output, gradient, keep=not last)
        for number, grad in enumerate(gradients):
            if grad is not None:
                self._add_call(scores, number, grad)
        for unit, grad in others.items():
            scores[0, unit] += self._stack(unit).flatten(1).double() @ grad.flatten().double()
        if not all_finite(scores):
            raise NotFinite(
                "the backward pass gave NaN or infinity", hint="the model overflows on this calibration data"
            )
        return scores.reshape(self._items, self._spans.count, units, formats).transpose(0, 1)

    def _stack(self, unit: int) -> torch.Tensor:
        return self._deltas.on_device(unit)

    def _add_call(self, scores: torch.Tensor, number: int, grad: torch.Tensor) -> None:
        laid = self._laid[number]
        if laid is None:
            raise Unsupported(
                "a layer mixes the items of a batch", hint="report this model; one item a batch would work"
            )
        parts, formats = self._calls[number].parts, len(self._deltas.formats)
        if replays(formats, laid.length, self._directions):
            grad = laid.lay(grad)
            for part in parts:
                replayed = self._by_replay((number, part.unit), laid.inputs, grad[..., part.start : part.stop])
                scores[:, part.unit] += replayed
            return
        cells = self._calls[number].inputs.shape[-1] * max(part.stop - part.start for part in parts)
        for some, d, x in laid.pieces(grad, max(TOGETHER, CACHED // cells)):
            for part in parts:
                scores[some, part.unit] += self._by_gradient(part.unit, d[..., part.start : part.stop], x)

    def _by_gradient(self, unit: int, grad: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        errors, width = self._stack(unit).flatten(1), inputs.shape[-1]
        some = max(1, CACHED // (len(grad) * width))
        found = grad.new_zeros(len(errors), len(grad))
        for start in range(0, grad.shape[-1], some):
            gradient = torch.bmm(grad[..., start : start + some].transpose(1, 2), inputs).flatten(1)
            found += errors[:, start * width : (start + some) * width] @ gradient.T
        return found.T.double()

    def _by_replay(self, key: tuple[int, int], inputs: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        if key not in self._replayed:
            self._replayed[key] = torch.stack([inputs @ error.T for error in self._stack(key[1])], dim=1).flatten(2)
        return torch.bmm(self._replayed[key], grad.flatten(1)[:, :, None]).squeeze(-1).double()


def differentiate(
    runner: Runner,
    listener: Listener,
    calls: Sequence[Call],
    output: torch.Tensor,
    gradient: torch.Tensor,
    *,
    keep: bool,
) -> tuple[list[torch.Tensor | None], dict[int, torch.Tensor]]:
    """Gradients of every call's output (None: not reached), and of the units that autograd differentiates."""
    parameters = runner.parameters
    names = list(dict.fromkeys(place.parameter for place in listener.others.values()))
    wanted = [call.output for call in calls] + [parameters[name] for name in names]
    found = torch.autograd.grad(output, wanted, gradient, retain_graph=keep, allow_unused=True)
    of_parameter = dict(zip(names, found[len(calls) :], strict=True))
    others = {}
    for unit, place in listener.others.items():
        grad = of_parameter[place.parameter]
        if grad is not None:
            others[unit] = place.view({place.parameter: torch.nn.Parameter(grad, requires_grad=False)})
    return list(found[: len(calls)]), others
