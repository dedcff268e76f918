"""From the sum of a plan's cells to its KL: KL = scale S + jump sqrt(S), fitted on uniform plans that are really run.

Curvature says KL = S for small errors that share no sign. Two things break that, and both show when whole models are
quantized, never one unit at a time:

- A router that changes its mind. The chance that an error of size e moves a token across a decision boundary grows like
  e, and what crossing costs does not shrink with e: a part of the KL grows like e, that is like sqrt(S). Measured on
  tests/models/mixtral-stdlib, plans of 4 bits: S is 0.69 of the KL as it is and 1.03 of the KL with the routes held.
- Errors that share a sign (clipping, 1 bit) add up in amplitude: `scale` above 1 (research/09, conclusion 3).

Both are functions of S alone, and rising, so the plan that minimises S is the one that minimises the KL: only the
prediction changes, no choice does. Cost: one forward pass a format over at most ANCHOR_TOKENS tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from bitwright.core.inventory import Unit
from sensitivity.base import Losses, ScoringTask
from sensitivity.data import Data
from sensitivity.deltas import quantized_weight, unit_weight
from sensitivity.evaluate import measure_variants
from sensitivity.quality import Z95
from sensitivity.runner import Runner
from sensitivity.stream_measure import Variant
from sensitivity.stream_options import activation_bytes

#: Tokens (items of image models) that the uniform plans are run on.
ANCHOR_TOKENS = 5120
#: Uniform plans that are run at most; of a longer menu, evenly spread ones.
ANCHOR_FORMATS = 4
#: An anchor whose KL is above this is past any expansion around the original, and is left out.
LARGEST_KL = 0.5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """scale, jump: of KL = scale S + jump sqrt(S). spread: relative scatter of the anchors around that curve.

    points: (format, sum, measured KL) of every anchor, from which the curve is fitted.
    """

    scale: float = 1.0
    jump: float = 0.0
    spread: float = 0.0
    anchors: int = 0
    points: tuple[tuple[str, float, float], ...] = ()

    def kl(self, total: float) -> float:
        """Expected KL of a plan whose cells sum to `total`."""
        return self.scale * total + self.jump * math.sqrt(max(0.0, total))

    def interval(self, total: float, stderr: float | None) -> tuple[float, float]:
        """95 % interval of that KL: the doubt of the sum and the scatter of the anchors, on a log scale."""
        if total <= 0:
            return 0.0, 0.0
        slope = (self.scale * total + 0.5 * self.jump * math.sqrt(total)) / max(self.kl(total), 1e-300)
        relative = math.hypot(self.spread, slope * (stderr or 0.0) / total)
        factor = math.exp(Z95 * relative)
        return self.kl(total) / factor, self.kl(total) * factor

    def to_json(self) -> dict[str, Any]:
        return {
            "scale": self.scale, "jump": self.jump, "spread": self.spread, "anchors": self.anchors,
            "points": [list(point) for point in self.points],
        }  # fmt: skip

    @staticmethod
    def from_json(stored: Mapping[str, Any] | None) -> Response:
        """The response of a table's provenance; the identity for tables without one."""
        if not stored:
            return Response()
        points = tuple((str(name), float(total), float(kl)) for name, total, kl in stored.get("points", ()))
        return Response(stored["scale"], stored["jump"], stored["spread"], stored["anchors"], points)


def fit(sums: Floats, measured: Floats) -> Response:
    """Least squares on relative errors, neither term negative. sums, measured: (anchors,), positive."""
    if not len(sums):
        return Response()
    columns = np.stack([sums, np.sqrt(sums)], axis=1) / measured[:, None]
    (scale, jump), _ = nnls(columns, np.ones(len(sums)))
    left = columns @ np.array([scale, jump]) - 1.0
    spread = float(np.sqrt((left**2).sum() / max(1, len(sums) - 2)))
    return Response(float(scale), float(jump), spread, len(sums))


def joined(responses: Iterable[Response]) -> Response:
    """The response fitted on the anchors of several tables of one model; the identity without any."""
    return _fitted(tuple(dict.fromkeys(point for response in responses for point in response.points)))


def _fitted(points: tuple[tuple[str, float, float], ...]) -> Response:
    kept = [(total, kl) for _, total, kl in points if 0 < kl < LARGEST_KL]
    sums, measured = (np.array([pair[side] for pair in kept], np.float64) for side in (0, 1))
    return replace(fit(sums, measured), points=points)


def anchor_rows(data: Data) -> NDArray[np.int64]:
    """Rows of the scoring data that anchors are run on: its first ones, which are a random sample (see data.split)."""
    size = max(1.0, data.tokens / max(1, data.items))
    return np.arange(min(data.items, max(1, round(ANCHOR_TOKENS / size))), dtype=np.int64)


def measure_response(task: ScoringTask, runner: Runner | None, loss: Losses) -> Response:
    """The response of a model. loss: (units, formats) on the anchor rows alone, so that both sides see one text.

    runner: the model in memory; None: it is read block by block.
    """
    if task.data is None:
        return Response()
    sums = loss.sum(axis=0)
    columns = [int(column) for column in np.flatnonzero(np.isfinite(sums) & (sums > 0))]
    if len(columns) > ANCHOR_FORMATS:
        picked = np.linspace(0, len(columns) - 1, ANCHOR_FORMATS).round().astype(int)
        columns = [sorted(columns, key=lambda column: float(sums[column]))[i] for i in picked]
    if not columns:
        return Response()
    numbers = {unit.name: number for number, unit in enumerate(task.inventory.units)}

    def of(column: int) -> Variant:
        def weights(unit: Unit) -> NDArray[np.float32]:
            weight = unit_weight(task.source, unit)
            if runner is None:
                return quantized_weight(task.deltas.quantizer, weight, task.formats[column], unit)
            changed: NDArray[np.float32] = weight + task.deltas.stack(numbers[unit.name])[column]
            return changed

        return weights

    found = measure_variants(
        task.source, task.inventory, {str(column): of(column) for column in columns},
        task.data.take(anchor_rows(task.data)), progress=task.progress, runner=runner, stream=True,
        activation_bytes=activation_bytes(task),
    )  # fmt: skip
    return _fitted(tuple((task.formats[column].name, float(sums[column]), found[str(column)].kl) for column in columns))
