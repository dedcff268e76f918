"""`kron`: curvature as a Kronecker product of inputs and output gradients, tr(dW A dW' G) (K-FAC, arXiv:1503.05671).

    A = sum over t of x_t x_t',   G = sum over t and k of w_k d_tk d_tk',   N = tokens that reached the layer
    loss[u, f] = 1/2 tr(dW A dW' G) / N / (positions of all items)

with labels drawn from the model's own output as in `fisher`. It takes inputs and gradients as independent and tokens
as independent; research/08 section 0 measured it level with `fisher` on dense language models, 27 % behind on a MoE
and 67 % on a ViT. Nats of KL. Cost: the passes of `fisher`, two Gram matrices a layer; formats cost two products
each. Layers of more than DENSE outputs keep the diagonal of G only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from sensitivity.base import Scores, ScoringTask
from sensitivity.fallback import fill_unmeasured
from sensitivity.layers import Layer, Passes
from sensitivity.local import LayerPasses
from sensitivity.partial import State
from sensitivity.share import blocks_of, by_units
from sensitivity.stream_options import OPTIONS

#: Output features up to which G is a whole matrix (float32: 64 MiB).
DENSE = 4096


class _Factors:
    """Sums of x x' and d d' of one unit."""

    def __init__(self) -> None:
        self.inputs: torch.Tensor | None = None
        self.gradients: torch.Tensor | None = None
        self.tokens = 0

    def add(self, layer: Layer) -> None:
        x = layer.inputs.flatten(0, 1)
        first = (x.T @ x).double()
        self.inputs = first if self.inputs is None else self.inputs + first
        for gradient, weight in zip(layer.gradients, layer.weights, strict=True):
            d = (gradient * weight.sqrt().to(gradient.dtype)[:, None, None]).flatten(0, 1)
            second = (d.T @ d if d.shape[1] <= DENSE else d.square().sum(0)).double()
            self.gradients = second if self.gradients is None else self.gradients + second
        self.tokens += len(x)

    def trace(self, errors: torch.Tensor) -> NDArray[np.float64]:
        """(formats,) tr(dW A dW' G) / tokens. errors: (formats, out, in)."""
        if self.inputs is None or self.gradients is None:
            return np.zeros(len(errors))
        found = []
        for error in errors.double():
            rows = (error @ self.inputs, error)
            if self.gradients.ndim == 1:
                found.append(float(((rows[0] * rows[1]).sum(1) * self.gradients).sum()))
            else:
                found.append(float((rows[0] * (self.gradients @ rows[1])).sum()))
        return np.array(found, np.float64) / self.tokens


class Kron:
    """Kronecker-factored curvature."""

    name = "kron"
    needs_data = True
    options = OPTIONS

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        layers = LayerPasses(task, Passes("drawn"))

        def rows(units: tuple[int, ...]) -> Iterator[tuple[int, State]]:
            """All passes, but the products of these units alone: they are what takes the memory."""
            factors: dict[int, _Factors] = {}
            losses = {unit: np.zeros(task.shape[1]) for unit in units}

            def add(unit: int, layer: Layer) -> None:
                factors.setdefault(unit, _Factors()).add(layer)

            def close(unit: int) -> None:
                losses[unit] = 0.5 * factors.pop(unit).trace(task.deltas.on_device(unit))

            norm = layers.visit(units, add, close).norm
            for unit, loss in losses.items():
                yield unit, {"loss": loss / max(1, norm), "energy": task.deltas.energy(unit)}

        found = by_units(task, blocks_of(task.inventory), rows)
        loss = np.array([found[unit]["loss"] for unit in range(task.shape[0])]).reshape(task.shape)
        exact = task.deltas.energies().max(axis=1, initial=0.0) == 0
        reached = (loss.max(axis=1, initial=0.0) > 0) | exact
        loss, stderr, unmeasured = fill_unmeasured(task, loss, np.full(task.shape, np.nan), reached)
        items = task.data.items if task.data is not None else 0
        return Scores(
            loss=loss, stderr=stderr, loss_unit=layers.ran.head.loss_unit,
            tokens=task.data.tokens if task.data is not None else 0, samples=items * layers.ran.directions,
            unmeasured=unmeasured, warnings=layers.ran.warnings, parameters={"items": items},
        )  # fmt: skip


METRIC = Kron()
