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
from sensitivity.on_device import back
from sensitivity.runner import Runner, load_runner

LABELS = 16
#: Items that run together; bytes of the original's outputs that are kept.
ITEMS, KEPT_BYTES = 32, 256 << 20
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
    menu = [parse_format(name) for name in formats]
    signed, kl, done = [], np.zeros(len(cells)), 0
    with torch.inference_mode():
        for batches in _groups(model, data):
            references = [_log(model.output(batch)) for batch in batches]
            labels = [_labels(reference, generator) for reference in references]
            found = np.empty((len(cells), sum(map(torch.numel, labels))), np.float32)
            for at, (unit, column) in enumerate(cells):
                spec = inventory.units[unit]
                weight = quantized_weight(quantizer, unit_weight(source, spec), menu[column], spec)
                with model.replaced({spec.name: weight}):
                    outputs = [_log(model.output(batch)) for batch in batches]
                parts = [_moved(*one) for one in zip(references, outputs, labels, strict=True)]
                kl[at] += sum(total for _, total in parts)
                found[at] = np.concatenate([values for values, _ in parts])
            signed.append(found)
            done += sum(batch.items for batch in batches)
            progress("measure", done / data.items, f"interactions of {len(cells)} cells")
    whole = np.concatenate(signed, axis=1)
    return Sketches(tuple(cells), whole, kl / (whole.shape[1] / LABELS))


def _groups(model: Runner, data: Data) -> list[list[Data]]:
    """Batches of ITEMS in groups whose reference outputs fit KEPT_BYTES; a cell is quantized once a group."""
    one = _log(model.output(data.take(np.zeros(1, np.int64)).trimmed())).numel() * 8
    size = max(1, min(ITEMS, KEPT_BYTES // one))
    batches = [data.take(np.arange(at, min(at + size, data.items))).trimmed() for at in range(0, data.items, size)]
    many = max(1, KEPT_BYTES // (one * size))
    return [batches[at : at + many] for at in range(0, len(batches), many)]


def _moved(reference: torch.Tensor, output: torch.Tensor, labels: torch.Tensor) -> tuple[NDArray[np.float32], float]:
    """(centred log q - log p at the labels, the KL summed over positions)."""
    moved = output - reference
    mean = (reference.exp() * moved).sum(-1, keepdim=True)
    values: NDArray[np.float32] = back((moved - mean).gather(-1, labels).flatten().float())
    return values, -float(mean.sum())


def _log(output: torch.Tensor) -> torch.Tensor:
    """float64 log-probabilities (positions, classes)."""
    return torch.log_softmax(output.double(), -1).flatten(0, -2)


def _labels(reference: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """int64 (positions, LABELS)."""
    mass = reference.exp()
    return draw_labels(mass, np.stack([generator.random(len(mass)) for _ in range(LABELS)], axis=1))


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
