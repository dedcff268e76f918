"""Pair terms from probes: each unit really quantized alone, what it does to the log-probabilities kept with its sign.

With s_uf(t, y) = log q_uf(y | t) - log p(y | t), centred under p, the KL of several small changes together is

    KL ~ 1/2 E_t E_{y~p} (sum over units of s)^2 = sum over units of 1/2 E s_u^2 + sum over pairs of E s_u s_v,

so the extra loss of a pair is the mean product of its two sketches (research/08, 3c: cross terms from probe sketches
gain 5 to 20 % where errors are large, below about 2.2 bits, and cost up to 11 % a little above; those from gradient
samples are too noisy to plan with). LABELS labels a position are drawn from the original's output. Cost: one forward
pass a probed cell over a few hundred tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from quantizers.base import Quantizer
from sensitivity.base import Progress
from sensitivity.data import Data
from sensitivity.deltas import quantized_weight, unit_weight
from sensitivity.heads import draw_labels
from sensitivity.runner import Runner, load_runner

LABELS = 16
_STREAM = 0x5E7C
Cell = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Sketches:
    """cells: (unit, column) of each probe. signed: float32 (cells, samples). kl: float64 (cells,), measured alone."""

    cells: tuple[Cell, ...]
    signed: NDArray[np.float32]
    kl: NDArray[np.float64]

    def products(self) -> NDArray[np.float64]:
        """(cells, cells) mean products: the extra loss of two cells together; the diagonal is twice a cell's own."""
        wide = self.signed.astype(np.float64)
        return np.asarray(wide @ wide.T / wide.shape[1], np.float64)


def sketch(
    source: ModelSource,
    inventory: Inventory,
    quantizer: Quantizer,
    formats: Sequence[str],
    cells: Sequence[Cell],
    data: Data,
    *,
    seed: int = 0,
    progress: Progress,
    runner: Runner | None = None,
) -> Sketches:
    """Probes of these cells on all of `data` (language models and classifiers). formats: names of the columns.

    Raises NotFinite, Unsupported, OutOfResources.
    """
    model = runner or load_runner(source, inventory)
    generator = np.random.Generator(np.random.Philox(key=[seed, _STREAM]))
    rows = [np.arange(start, min(start + 8, data.items)) for start in range(0, data.items, 8)]
    signed, kl = np.empty((len(cells), 0), np.float32), np.zeros(len(cells))
    menu = [parse_format(name) for name in formats]
    with torch.inference_mode():
        for number, some in enumerate(rows):
            batch = data.take(some).trimmed()
            reference = _log(model.output(batch))
            labels = _labels(reference, generator)
            mass = reference.exp()
            found = np.empty((len(cells), labels.numel()), np.float32)
            for at, (unit, column) in enumerate(cells):
                spec = inventory.units[unit]
                weight = quantized_weight(quantizer, unit_weight(source, spec), menu[column], spec)
                with model.replaced({spec.name: weight}):
                    moved = _log(model.output(batch)) - reference
                mean = (mass * moved).sum(-1, keepdim=True)  # minus the KL of the position
                kl[at] -= float(mean.sum())
                found[at] = (moved - mean).gather(-1, labels).flatten().numpy()
            signed = np.concatenate([signed, found], axis=1)
            progress("measure", (number + 1) / len(rows), f"interactions of {len(cells)} cells")
    return Sketches(tuple(cells), signed, kl / (signed.shape[1] / LABELS))


def _log(output: torch.Tensor) -> torch.Tensor:
    """float64 log-probabilities (positions, classes)."""
    return torch.log_softmax(output.double(), -1).flatten(0, -2)


def _labels(reference: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """int64 (positions, LABELS)."""
    mass = reference.exp()
    drawn = [draw_labels(mass, generator.random(len(mass))) for _ in range(LABELS)]
    return torch.stack(drawn, dim=1)


def pair_terms(
    cells: Sequence[Cell], products: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(units (p, 2), columns (p, 2), loss (p,)) of every pair of cells of two different units."""
    units, columns = np.array(cells, np.int64).reshape(-1, 2).T
    first, second = np.nonzero(np.triu(units[:, None] != units[None, :], 1))
    return (
        np.stack([units[first], units[second]], axis=1), np.stack([columns[first], columns[second]], axis=1),
        products[first, second],
    )  # fmt: skip
