"""From the sum of a plan's cells to its KL: KL = scale S + jump sqrt(S), fitted on plans that are really run.

Curvature says KL = S for small errors that share no sign. Two things break that, and both show when whole models are
quantized, never one unit at a time:

- A router that changes its mind. The chance that an error of size e moves a token across a decision boundary grows like
  e, and what crossing costs does not shrink with e: a part of the KL grows like e, that is like sqrt(S). Measured on
  tests/models/mixtral-stdlib, plans of 4 bits: S is 0.69 of the KL as it is and 1.03 of the KL with the routes held.
- Errors that share a sign (clipping, 1 bit) add up in amplitude: `scale` above 1 (research/09, conclusion 3).

Both are functions of S alone, and rising, so the plan that minimises S is the one that minimises the KL: only the
prediction changes, no choice does.

The plans that are run, the anchors, are ones that the table itself would choose: the least expected loss at some number
of bytes. An optimised plan differs from a uniform one: cells that the draw of labels flattered are chosen, routers are
treated better. All of that is in the ratio of its KL to its sum, and what labels do to the sum of one plan they do to
that of another plan of the same table. What is left is the text: on mixtral-stdlib the KL of 20 sequences is up to 27 %
from that of 64, because few tokens change their experts; that is why two anchors are run on twice the text rather than
four. Cost: one forward pass an anchor, and one of the original, over ANCHOR_TOKENS tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from bitwright.core.inventory import Unit
from sensitivity.base import Losses, ScoringTask
from sensitivity.data import Data
from sensitivity.deltas import quantized_weight, unit_weight
from sensitivity.evaluate import Original, measure_variants
from sensitivity.quality import Z95
from sensitivity.runner import Runner
from sensitivity.stream_measure import Variant
from sensitivity.stream_options import activation_bytes

#: Tokens (items of image models) that the anchors are run on.
ANCHOR_TOKENS = 10_240
#: Bytes of the anchors, as shares of the way from the smallest plan to the largest: 2.3 and 4 bits of 2 to 8.
SHARES = (0.05, 1 / 3)
#: An anchor whose KL is above this is past any expansion around the original, and is left out.
LARGEST_KL = 0.5

#: Price a byte beyond which nothing gets smaller, and halvings of it: float64 has no more to tell.
MOST_PRICE, HALVINGS = 1e12, 100

Floats = NDArray[np.float64]
Point = tuple[str, float, float, float]


@dataclass(frozen=True)
class Response:
    """scale, jump: of KL = scale S + jump sqrt(S). spread: relative doubt of that curve: the scatter of the anchors
    around it, where there are more than it has numbers, and the standard error of their KL over sequences.

    points: (plan, sum, measured KL, its standard error) of every anchor, from which the curve is fitted.
    optimised: the anchors were chosen by the table, so sums of other plans that it chose need no further correction.
    """

    scale: float = 1.0
    jump: float = 0.0
    spread: float = 0.0
    anchors: int = 0
    points: tuple[Point, ...] = ()
    optimised: bool = False

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
            "points": [list(point) for point in self.points], "optimised": self.optimised,
        }  # fmt: skip

    @staticmethod
    def from_json(stored: Mapping[str, Any] | None) -> Response:
        """The response of a table's provenance; the identity for tables without one."""
        if not stored:
            return Response()
        points = tuple((str(name), *map(float, numbers)) for name, *numbers in stored.get("points", ()))
        fitted = stored["scale"], stored["jump"], stored["spread"], stored["anchors"]
        return Response(*fitted, points, stored.get("optimised", False))  # type: ignore[arg-type]


def fit(sums: Floats, measured: Floats, error: float = 0.0) -> Response:
    """Least squares on relative errors, neither term negative. sums, measured: (anchors,), positive.

    error: relative standard error of what was measured.
    """
    if not len(sums):
        return Response()
    if len(sums) == 1:
        return Response(float(measured[0] / sums[0]), 0.0, error, 1)
    columns = np.stack([sums, np.sqrt(sums)], axis=1) / measured[:, None]
    (scale, jump), _ = nnls(columns, np.ones(len(sums)))
    left = columns @ np.array([scale, jump]) - 1.0
    scatter = float((left**2).sum() / max(1, len(sums) - 2))
    return Response(float(scale), float(jump), math.hypot(math.sqrt(scatter), error), len(sums))


def joined(responses: Iterable[Response]) -> Response:
    """The response fitted on the anchors of several tables of one model; the identity without any."""
    return _fitted(tuple(dict.fromkeys(point for response in responses for point in response.points)))


def _fitted(points: tuple[Point, ...]) -> Response:
    kept = np.array([point[1:] for point in points if 0 < point[2] < LARGEST_KL], np.float64).reshape(-1, 3)
    sums, measured, errors = kept.T
    error = float(np.sqrt(np.mean((errors / measured) ** 2))) if len(kept) else 0.0
    return replace(fit(sums, measured, error), points=points, optimised=True)


def anchor_rows(data: Data) -> NDArray[np.int64]:
    """Rows of the scoring data that anchors are run on: its first ones, which are a random sample (see data.split)."""
    size = max(1.0, data.tokens / max(1, data.items))
    return np.arange(min(data.items, max(1, round(ANCHOR_TOKENS / size))), dtype=np.int64)


def cheapest(loss: Losses, cost: NDArray[np.int64], limit: float) -> NDArray[np.int64]:
    """(units,) formats of the least loss + price x bytes, at the least price at which the bytes are within the limit.

    loss, cost: (units, formats).
    """
    low, high = 0.0, 1.0
    while high < MOST_PRICE and _bytes(cost, np.argmin(loss + high * cost, axis=1)) > limit:
        high *= 16
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        within = _bytes(cost, np.argmin(loss + middle * cost, axis=1)) <= limit
        low, high = (low, middle) if within else (middle, high)
    return np.asarray(np.argmin(loss + high * cost, axis=1), np.int64)


def _bytes(cost: NDArray[np.int64], choice: NDArray[Any]) -> int:
    return int(cost[np.arange(len(cost)), choice].sum())


def anchors(task: ScoringTask, loss: Losses) -> Iterator[tuple[str, float, NDArray[np.int64]]]:
    """(name, sum, choice) of the plans that are run. A first one beyond LARGEST_KL gives way to a larger one."""
    costs = {u.shape: [format.storage(u.shape).bytes for format in task.formats] for u in task.inventory.units}
    cost = np.array([costs[unit.shape] for unit in task.inventory.units], np.int64)
    least, most = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    rows, (share, next_share) = np.arange(len(cost)), SHARES

    def plan(share: float) -> tuple[str, float, NDArray[np.int64]]:
        choice = cheapest(loss, cost, least + share * (most - least))
        return f"{_bytes(cost, choice)} bytes", float(loss[rows, choice].sum()), choice

    first = plan(share)
    while first[1] > LARGEST_KL / 2 and share < 1:
        share = min(1.0, share + SHARES[0])
        first = plan(share)
    yield first
    second = plan(share + (1 - share) * (next_share - SHARES[0]))
    if second[0] != first[0]:
        yield second


def measure_response(
    task: ScoringTask, runner: Runner | None, loss: Losses, original: Original | None = None
) -> Response:
    """The response of a model. loss: (units, formats). runner: the model in memory; None: it is read block by block.

    original: what the model itself puts out for rows of the scoring data, where that is known.
    """
    if task.data is None:
        return Response()
    chosen = {name: (total, choice) for name, total, choice in anchors(task, loss) if total > 0}
    if not chosen:
        return Response()
    numbers = {unit.name: number for number, unit in enumerate(task.inventory.units)}

    def of(choice: NDArray[np.int64]) -> Variant:
        def weights(unit: Unit) -> NDArray[np.float32]:
            weight, column = unit_weight(task.source, unit), int(choice[numbers[unit.name]])
            if runner is None:
                return quantized_weight(task.deltas.quantizer, weight, task.formats[column], unit)
            changed: NDArray[np.float32] = weight + task.deltas.stack(numbers[unit.name])[column]
            return changed

        return weights

    found = measure_variants(
        task.source, task.inventory, {name: of(choice) for name, (_, choice) in chosen.items()},
        task.data.take(anchor_rows(task.data)), progress=task.progress, runner=runner, stream=True,
        activation_bytes=activation_bytes(task), original=original,
    )  # fmt: skip
    return _fitted(tuple((name, total, found[name].kl, found[name].stderr) for name, (total, _) in chosen.items()))
