"""`linearity`: how steeply KL rises with noise in one unit, measured without data (HIGGS, arXiv:2411.17525).

The linearity theorem: for small errors without direction, the loss rises by alpha_u t^2 with the relative error t^2
= ||dW||^2 / ||W||^2, alpha_u being the unit's own and the same for every quantizer. So alpha is measured with noise,
W + t ||W|| / sqrt(n) N(0, 1), as the KL from the clean model on random tokens (the paper's data-free variant), and

    loss[u, f] = alpha_u t^2[u, f],    alpha_u = sum_j KL_j t_j^2 / sum_j t_j^4    (least squares through the origin)

Loss unit: nats of KL (on random tokens). Cost: units x levels forward passes; formats cost nothing. `stderr` is the
scatter of the levels around the line. Trusted from 3 bits up: below, errors meet errors of other layers
(research/01, section 5). The R^2 of the lines is told: where it is low, the theorem does not hold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput
from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import unit_weight
from sensitivity.evaluate import measure_weights
from sensitivity.runner import load_runner
from sensitivity.synthetic import random_items

#: Relative squared errors: from 5 bits (0.0025) to 3 bits (0.035), the range of Gaussian quantizers (research/01).
LEVELS = (0.0025, 0.0095, 0.02, 0.035)
TOKENS = 2048
#: alpha below this share of the largest counts as this share: no unit is free (the paper clamps negative ones).
FLOOR = 1e-4
_STREAM = 0x1115

Weights = dict[str, NDArray[np.float32]]
Floats = NDArray[np.float64]


def slopes(levels: Floats, rises: Floats) -> tuple[Floats, Floats, Floats]:
    """(alpha, its standard error, R^2) of lines through the origin. levels: (j,) t^2; rises: (units, j)."""
    norm = float((levels**2).sum())
    alpha = rises @ levels / norm
    left = rises - alpha[:, None] * levels
    error = np.sqrt((left**2).sum(axis=1) / max(1, len(levels) - 1) / norm)
    power = (rises**2).sum(axis=1)
    return alpha, error, 1.0 - np.divide((left**2).sum(axis=1), power, out=np.ones_like(power), where=power > 0)


class Linearity:
    """Noise probes. Option `tokens`: random tokens a probe runs on (image models: images)."""

    name = "linearity"
    needs_data = False
    options = frozenset({"tokens"})

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        wanted = task.options.get("tokens", TOKENS if task.inventory.task != "image-classification" else 64)
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
            raise InvalidInput("the option tokens of linearity must be a positive count", got=repr(wanted)[:80])
        data = random_items(task.source, task.inventory, wanted, task.seed)
        energy = task.deltas.energies(task.progress)
        runner = load_runner(task.source, task.inventory)
        names = {(u, j): f"{u} {j}" for u in range(task.shape[0]) for j in range(len(LEVELS))}
        probes = {name: _noisy(task, u, j) for (u, j), name in names.items()}
        found = measure_weights(runner, probes, data, progress=task.progress, partial=task.partial)
        rises = np.array(
            [[found[names[u, j]].kl for j in range(len(LEVELS))] for u in range(task.shape[0])], np.float64
        )
        alpha, error, fit = slopes(np.array(LEVELS), rises)
        alpha = np.maximum(alpha, FLOOR * float(alpha.max(initial=0.0)))
        power = np.array([float(np.vdot(w, w)) for w in self._weights(task)])[:, None]
        relative = np.divide(energy, power, out=np.zeros_like(energy), where=power > 0)
        return Scores(
            loss=alpha[:, None] * relative, stderr=error[:, None] * relative, loss_unit=runner.head.loss_unit,
            tokens=data.tokens, samples=len(LEVELS), warnings=runner.warnings,
            parameters={
                "levels": list(LEVELS), "random_tokens": data.tokens, "r2_median": float(np.median(fit)),
                "r2_above_0.9": float((fit > 0.9).mean()),
            },
        )  # fmt: skip

    @staticmethod
    def _weights(task: ScoringTask) -> list[NDArray[np.float64]]:
        return [unit_weight(task.source, unit).astype(np.float64) for unit in task.inventory.units]


def _noisy(task: ScoringTask, unit: int, level: int) -> Callable[[], Weights]:
    """The unit with Gaussian noise of one level. The direction is the same at every level: what differs is the size."""
    spec = task.inventory.units[unit]

    def weights() -> Weights:
        weight = unit_weight(task.source, spec)
        generator = np.random.Generator(np.random.Philox(key=[task.seed ^ _STREAM, unit]))
        scale = np.sqrt(LEVELS[level] * float(np.vdot(weight.astype(np.float64), weight)) / weight.size)
        return {spec.name: weight + np.float32(scale) * generator.standard_normal(weight.shape, np.float32)}

    return weights


METRIC = Linearity()
