"""Cells of a unit know each other: losses are drawn towards what the unit's other formats say.

How much a unit matters is one number, which every format of the menu measures; how badly a format hits it is nearly its
squared error. So with q = loss / squared error, the cells of unit u are taken as

    q[u, f] = typical[f] (level[u] + own[u, f]),    own of mean zero and relative spread tau[f]

and what is measured as that plus noise of relative variance v[u] (the unit's mean squared relative standard error). The
expected cell, given what was measured, keeps the share tau^2 / (tau^2 + v) of its own deviation (empirical Bayes: C. N.
Morris, JASA 78 (1983), section 1). tau comes from the data, format by format, as the value at which deviations are as
large as noise and tau together say (R. C. Paule and J. Mandel, J. Res. NBS 87 (1982) 377). On the language models of
docs/metrics.md it is near 10 %, and one label set knows a cell to 13 %. Where nothing is noisy, nothing changes.

That is for noise of drawn labels, which is nearly independent from format to format. Where labels are enumerated, what
is uncertain is which items there are: all formats share it, spread is taken for noise, and plans get worse (vit-digits:
1.22 times the KL of measured truth, 1.03 unpooled). So only heads with a label a position pool.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.table import SensitivityTable

Floats = NDArray[np.float64]

#: Extra array of a table: (loss, stderr, squared error) as measured, (3, units, formats).
AS_MEASURED = "as_measured"
#: No format is taken to be more alike over units than this.
LEAST_SPREAD = 0.05
#: Units below which nothing is known of how units differ, and cells stay as measured.
FEWEST = 8
_MOST = 1e3
_HALVINGS = 60
#: Rounds in which formats that go their own way lose their say in the level of a unit.
_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class Pooling:
    """A linear map of cells (..., units, formats). scale: squared error x typical; share: of each format in the level
    of its unit; keep: of a cell's own deviation. Cells outside `known` stay as they are. noise: v, (units, 1)."""

    known: NDArray[np.bool_]
    scale: Floats
    share: Floats
    keep: Floats
    noise: Floats

    def apply(self, cells: Floats) -> Floats:
        """cells: (..., units, formats), losses or resampled ones."""
        own = np.divide(cells, self.scale, out=np.zeros(cells.shape), where=self.known)
        level = (own * self.share).sum(axis=-1, keepdims=True)
        return np.where(self.known, self.scale * (level + self.keep * (own - level)), cells)

    def stderr(self, pooled: Floats, stderr: Floats) -> Floats:
        """Standard errors of pooled cells: what is left of a cell's own noise, and the noise of the level."""
        level = (self.share**2).sum(axis=-1, keepdims=True) * self.noise
        relative = np.sqrt(self.keep * self.noise + (1 - self.keep) ** 2 * level)
        return np.where(self.known, pooled * relative, stderr)


def pooling(loss: Floats, stderr: Floats, energy: Floats) -> Pooling:
    """How cells are pooled. loss, stderr, energy (squared error): (units, formats)."""
    good = (loss > 0) & (energy > 0) & np.isfinite(stderr)
    rows = good.sum(axis=1) > 1
    known = good & (rows.sum() >= FEWEST) & rows[:, None]
    q = np.divide(loss, energy, out=np.zeros_like(loss), where=known)
    relative = np.divide(stderr, loss, out=np.zeros_like(loss), where=known)
    count = np.maximum(1, known.sum(axis=1, keepdims=True))
    noise = (relative**2).sum(axis=1, keepdims=True) / count
    typical = _typical(q, known, noise)
    own = q / typical
    share = known / count
    tau = _spreads(own, share, known, noise)
    for _ in range(_ROUNDS):
        weight = known / (noise + tau)
        share = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
        tau = _spreads(own, share, known, noise)
    return Pooling(known, energy * typical, share, tau / (tau + noise), noise)


def _typical(q: Floats, known: NDArray[np.bool_], noise: Floats) -> Floats:
    """(formats,) loss a squared error of each format over that of the unit's mean format, geometric over units."""
    logs = np.log(np.where(known, q, 1.0))
    count = np.maximum(1, known.sum(axis=1, keepdims=True))
    weight = known / (noise + LEAST_SPREAD**2)
    apart = (logs - logs.sum(axis=1, keepdims=True) / count) * weight
    return np.asarray(np.exp(apart.sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)))


def _spreads(own: Floats, share: Floats, known: NDArray[np.bool_], noise: Floats) -> Floats:
    """(formats,) tau^2 of each format: deviations from the unit's level, over noise + tau^2, are 1 in the mean."""
    level = np.maximum((own * share).sum(axis=1, keepdims=True), 1e-300)
    left = np.maximum(1 - share, 1e-2)  # of a deviation's variance, for the level is fitted to it too
    squares = np.where(known, (own / level - 1) ** 2 / left, 0.0)
    low, high = np.zeros(own.shape[1]), np.full(own.shape[1], _MOST)
    enough = np.maximum(1, known.sum(axis=0))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = (squares / (noise + middle + 1e-12)).sum(axis=0) / enough > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.maximum(low, LEAST_SPREAD**2)


def as_measured(table: SensitivityTable) -> SensitivityTable:
    """The table with the cells that were measured, before they were pooled; as it is where it is not pooled."""
    measured = table.extras.get(AS_MEASURED)
    return table if measured is None else replace(table, loss=measured[0], stderr=measured[1])


def pooled(table: SensitivityTable) -> SensitivityTable:
    """The table with its cells pooled over the formats that it has now; as it is where it is not pooled."""
    measured = table.extras.get(AS_MEASURED)
    if measured is None:
        return table
    found = pooling(*measured)
    loss = found.apply(measured[0])
    return replace(table, loss=loss, stderr=found.stderr(loss, measured[1]))


def samples_of(table: SensitivityTable) -> tuple[Floats | None, NDArray[np.float32] | None]:
    """(resampled tables, signed samples) of a table, which keeps both as measured.

    The first are pooled as its cells are, the second scaled, so that half their mean square is the cell.
    """
    measured, resampled, signed = (table.extras.get(name) for name in (AS_MEASURED, "resampled", "signed"))
    if measured is None:
        return resampled, signed
    if resampled is not None:
        resampled = pooling(*measured).apply(resampled)
    if signed is not None:
        ratio = np.divide(table.loss, measured[0], out=np.ones_like(table.loss), where=measured[0] > 0)
        signed = signed * np.sqrt(ratio).astype(np.float32)
    return resampled, signed
