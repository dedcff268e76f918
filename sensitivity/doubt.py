"""What sampling noise does to a plan: how many units change format when calibration is resampled, and how much the sum
of an optimised plan flatters itself.

An optimiser picks the cells that were underestimated. Each resampled table stands to the table as the table stands to
the truth, so the plan of a resampled table, summed in the table and in its own, shows by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensitivity.response import Response

Losses = NDArray[np.float64]
Choice = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Stability:
    """changed: share of units that change format, a unit (over resampled tables). mean: its mean over units.

    optimism: true over claimed loss of an optimised plan, at least 1 where there is any noise. regret: relative rise of
    the loss of plans from resampled tables, judged by the table: what the noise costs the plan itself.
    """

    changed: NDArray[np.float64]
    optimism: float
    regret: float
    tables: int

    @property
    def mean(self) -> float:
        return float(self.changed.mean()) if len(self.changed) else 0.0

    def to_json(self) -> dict[str, Any]:
        return {"changed": self.mean, "optimism": self.optimism, "regret": self.regret, "tables": self.tables}


def stability(loss: Losses, resampled: Losses, choice: Choice, solve: Callable[[Losses], Choice]) -> Stability:
    """loss: (units, formats). resampled: (tables, units, formats). solve: losses -> formats, at the plan's limits."""
    rows = np.arange(len(loss))
    base = float(loss[rows, choice].sum())
    changed = np.zeros(len(loss))
    truths, claims = [], []
    for table in resampled:
        other = np.asarray(solve(table))
        changed += other != choice
        truths.append(float(loss[rows, other].sum()))
        claims.append(float(table[rows, other].sum() / max(table[rows, choice].sum(), 1e-300)))
    tables = len(resampled)
    if not tables or base <= 0:
        return Stability(changed, 1.0, 0.0, tables)
    regret = float(np.mean(truths)) / base
    return Stability(changed / tables, max(1.0, regret / float(np.mean(claims))), regret - 1.0, tables)


@dataclass(frozen=True)
class Prediction:
    """kl: expected KL of a plan with its 95 % interval; additive: the bare sum of its cells.

    joint: the sum with the covariances between units, where signed samples are kept.
    """

    kl: float
    low: float
    high: float
    additive: float
    optimism: float
    joint: float | None = None

    def to_json(self) -> dict[str, float]:
        found = {
            "kl": self.kl, "low": self.low, "high": self.high, "additive": self.additive, "optimism": self.optimism,
        }  # fmt: skip
        return found if self.joint is None else {**found, "joint": self.joint}


def joint_loss(loss: Losses, signed: NDArray[np.float32], choice: Choice) -> float:
    """Half the mean square of the plan's signed scores summed over units: the additive sum and all cross terms.

    signed: float32 (samples, units, formats), half the mean square of each being its cell. Units that no sample
    touches have a loss by fallback, which is added.
    """
    rows = np.arange(len(loss))
    together = signed[:, rows, choice].astype(np.float64).sum(axis=1)
    stand_ins = ~signed.any(axis=(0, 2))
    return float(0.5 * (together**2).mean() + loss[rows, choice][stand_ins].sum())


def predict(
    loss: Losses, stderr: Losses, choice: Choice, response: Response, *, resampled: Losses | None = None,
    optimism: float = 1.0, signed: NDArray[np.float32] | None = None,
) -> Prediction:  # fmt: skip
    """Expected KL of a plan: its sum through the response, which is fitted on plans that were optimised like it (else
    corrected for the optimism of that).

    The doubt of the sum comes from the resampled tables (which know how cells move together) and from independent
    standard errors where there are none.
    """
    rows = np.arange(len(loss))
    additive = float(loss[rows, choice].sum())
    if resampled is not None and len(resampled) > 1:
        doubt = float(resampled[:, rows, choice].sum(axis=1).std(ddof=1))
    else:
        cells = stderr[rows, choice]
        doubt = float(np.sqrt(np.nansum(cells**2)))
    total = additive if response.optimised else additive * optimism
    low, high = response.interval(total, doubt)
    joint = None if signed is None else joint_loss(loss, signed, choice)
    return Prediction(response.kl(total), low, high, additive, optimism, joint)
