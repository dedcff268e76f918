"""`kl-probe`: every unit really quantized, alone, in every format, and the KL measured (research/08 'oracle additive').

The truth about one unit at a time, third and higher orders included; still additive over units. Cost: units x formats
forward passes, about 20 times `fisher` a token, so only the first PROBE_TOKENS tokens are used (option `tokens`).
On the MoE of research/08 (section 4.5) sums of probes overcount router flips, and `fisher` made better plans.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, InvalidInput
from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import unit_weight
from sensitivity.evaluate import measure_weights
from sensitivity.runner import load_runner

#: About what research/08 used for its probes (1.5 k to 3 k tokens).
PROBE_TOKENS = 2048
Weights = dict[str, NDArray[np.float32]]


class KlProbe:
    """One unit at a time, measured."""

    name = "kl-probe"
    needs_data = True
    options = frozenset({"tokens"})

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        if task.data is None:
            raise InvalidCalibration(
                "this metric needs calibration data", hint="leave --calibration out for the bundled one"
            )
        wanted = task.options.get("tokens", PROBE_TOKENS)
        if not isinstance(wanted, int) or wanted < 1:
            raise InvalidInput("the option tokens of kl-probe must be a positive count", got=repr(wanted)[:80])
        per_item = max(1.0, task.data.tokens / max(1, task.data.items))
        data = task.data.take(np.arange(min(task.data.items, max(1, round(wanted / per_item)))))
        cells = {(u, f): _changed(task, u, f) for u in range(task.shape[0]) for f in range(task.shape[1])}
        names = {f"{unit} {format}": make for (unit, format), make in cells.items()}
        runner = load_runner(task.source, task.inventory)
        found = measure_weights(runner, names, data, progress=task.progress, partial=task.partial)
        quality = [[found[f"{u} {f}"] for f in range(task.shape[1])] for u in range(task.shape[0])]
        loss, stderr = (
            np.array([[getattr(cell, name) for cell in row] for row in quality], np.float64).reshape(task.shape)
            for name in ("kl", "stderr")
        )
        return Scores(
            loss=loss, stderr=stderr, loss_unit=runner.head.loss_unit, tokens=data.tokens, samples=data.items,
            parameters={"items": data.items}, warnings=runner.warnings,
        )  # fmt: skip


def _changed(task: ScoringTask, unit: int, column: int) -> Callable[[], Weights]:
    spec = task.inventory.units[unit]

    def weights() -> Weights:
        return {spec.name: unit_weight(task.source, spec) + task.deltas.stack(unit)[column]}

    return weights


METRIC = KlProbe()
