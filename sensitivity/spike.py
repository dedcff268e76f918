"""Activation spikes as lower bounds: layers whose input holds a few huge values keep a minimum of bits.

A handful of projections of large language models carry almost all of the activation spikes, and low widths there
break the model whatever the average says (arXiv:2504.21553; thresholds are this project's, research/03 section 5.1):

    kappa_u = max |x| / median over items of the 0.999 quantile of |x|
    sigma_u = max |x_u| / sum over layers of max |x|

A layer with kappa above THRESHOLD is pinned. What is pinned is not a loss but a bound: `floors` gives the cells that
stay allowed, to be handed to `SensitivityTable.problem(allowed=...)`. Cost: 1 forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory
from sensitivity.base import ScoringTask
from sensitivity.layers import Layer, Passes
from sensitivity.local import LayerPasses

THRESHOLD = 20.0
QUANTILE = 0.999


@dataclass(frozen=True, eq=False)
class Spikes:
    """kappa, share: (units,). Units that no token reached have kappa 1 and share 0."""

    kappa: NDArray[np.float64]
    share: NDArray[np.float64]

    def pinned(self, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
        """(units,) which layers are to keep a minimum of bits."""
        return self.kappa > threshold


def find_spikes(task: ScoringTask) -> Spikes:
    """Spikes of every unit's inputs on the scoring data. Raises InvalidCalibration, Unsupported."""
    units = task.shape[0]
    largest = np.zeros(units)
    quantiles: dict[int, list[float]] = {}

    def add(unit: int, layer: Layer) -> None:
        for item in layer.inputs.abs():
            values = item.flatten()
            if len(values):
                largest[unit] = max(largest[unit], float(values.max()))
                rank = max(1, int(np.ceil(QUANTILE * len(values))))
                quantiles.setdefault(unit, []).append(float(torch.kthvalue(values, rank).values))

    LayerPasses(task, Passes("none")).visit(range(units), add, lambda unit: None)
    typical = np.array([np.median(quantiles[u]) if u in quantiles else 0.0 for u in range(units)])
    kappa = np.divide(largest, typical, out=np.ones(units), where=typical > 0)
    return Spikes(kappa, largest / max(float(largest.sum()), 1e-300))


def floors(
    inventory: Inventory, formats: tuple[str, ...], pinned: NDArray[np.bool_], least_bits: float
) -> NDArray[np.bool_]:
    """bool (units, formats): cells that stay allowed when pinned units keep at least so many stored bits a weight.

    A pinned unit for which no format is that wide keeps its widest.
    """
    menu = [parse_format(name) for name in formats]
    allowed = np.ones((len(inventory.units), len(menu)), np.bool_)
    for row in np.flatnonzero(pinned):
        unit = inventory.units[row]
        bits = np.array([8 * f.storage(unit.shape).bytes / unit.elements for f in menu])
        allowed[row] = bits >= min(least_bits, float(bits.max()))
    return allowed
