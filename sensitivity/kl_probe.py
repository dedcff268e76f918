"""`kl-probe`: every unit really quantized, alone, in every format, and the KL measured (research/08 'oracle additive').

The truth about one unit at a time, third and higher orders included; still additive over units. Cost: units x formats
forward passes, about 20 times `fisher` a token, so only the first PROBE_TOKENS tokens are used (option `tokens`).
On the MoE of research/08 (section 4.5) sums of probes overcount router flips, and `fisher` made better plans. Units
that change no output (experts that no token reaches) are filled as stated in fallback.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, InvalidInput
from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import quantized_weight, unit_weight
from sensitivity.fallback import fill_silent
from sensitivity.partial import State
from sensitivity.probes import Probe, Prober
from sensitivity.share import by_units, one_by_one
from sensitivity.stream_options import OPTIONS

#: About what research/08 used for its probes (1.5 k to 3 k tokens).
PROBE_TOKENS = 2048


class KlProbe:
    """One unit at a time, measured."""

    name = "kl-probe"
    needs_data = True
    options = frozenset({"tokens", *OPTIONS})

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
        prober = Prober(task)
        columns = range(task.shape[1])

        def probe(units: tuple[int, ...]) -> Iterator[tuple[int, State]]:
            names = {(u, f): f"{u} {f}" for u in units for f in columns}
            probes = {name: _changed(task, u, f, prober.streamed) for (u, f), name in names.items()}
            found = prober.measure(probes, data)
            for u in units:
                row = [found[names[u, f]] for f in columns]
                yield u, {"kl": np.array([cell.kl for cell in row]), "stderr": np.array([cell.stderr for cell in row])}

        probed = by_units(task, one_by_one(task.inventory), probe)
        loss, stderr = (
            np.array([probed[u][name] for u in range(task.shape[0])], np.float64).reshape(task.shape)
            for name in ("kl", "stderr")
        )
        loss, stderr, unmeasured = fill_silent(task, loss, stderr)
        return Scores(
            loss=loss, stderr=stderr, loss_unit=prober.loss_unit, tokens=data.tokens, samples=data.items,
            unmeasured=unmeasured,
            parameters={"items": data.items, **({"streamed": True} if prober.streamed else {})},
            warnings=prober.warnings,
        )  # fmt: skip


def _changed(task: ScoringTask, unit: int, column: int, streamed: bool) -> Probe:
    spec = task.inventory.units[unit]

    def weights() -> NDArray[np.float32]:
        weight = unit_weight(task.source, spec)
        if streamed:  # no errors are kept: made for this format alone
            error = quantized_weight(task.deltas.quantizer, weight, task.formats[column], spec) - weight
        else:
            error = task.deltas.stack(unit)[column]
        changed: NDArray[np.float32] = weight + error
        return changed

    return Probe(unit, weights)


METRIC = KlProbe()
