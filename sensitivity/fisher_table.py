"""What `fisher` makes of finished sums, in memory or block by block: table, doubt, response, stand-ins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration
from sensitivity.base import Scores, ScoringTask
from sensitivity.data import Data
from sensitivity.evaluate import Original
from sensitivity.fallback import fill_unmeasured, heard
from sensitivity.moments import REPLICATES, Moments
from sensitivity.partial import Partial
from sensitivity.pooling import AS_MEASURED, pooling
from sensitivity.response import measure_response
from sensitivity.runner import Runner
from sensitivity.spans import Spans


def required(task: ScoringTask) -> Data:
    if task.data is not None and task.data.items == 0:
        raise InvalidCalibration("the calibration data is empty", hint="give a longer --calibration text")
    if task.data is None:
        raise InvalidCalibration(
            "this metric needs calibration data", hint="leave --calibration out for the bundled one"
        )
    return task.data


#: Signed samples are kept beside the table up to so many bytes (and beyond, when asked for).
SIGNED_BYTES = 32 << 20


def keeps_signed(task: ScoringTask, directions: int) -> bool:
    """Whether signed samples are kept: they give the joint prediction of any plan."""
    units, formats = task.shape
    held = 4 * required(task).items * directions * units * formats
    return bool(task.options.get("keep_samples")) or held <= SIGNED_BYTES


def make_moments(task: ScoringTask, partial: Partial) -> Moments:
    return Moments(*task.shape, partial, replicates=REPLICATES, seed=task.seed)


@dataclass(frozen=True)
class Spent:
    """samples an item, directions an item, how its positions are cut, and what the losses are in.

    pools: whether cells are pooled over formats: where labels are drawn position by position (see pooling.py).
    """

    samples: int
    directions: int
    spans: Spans
    loss_unit: str
    pools: bool


def finished(
    task: ScoringTask, moments: Moments, known: NDArray[np.bool_], effort: Spent, runner: Runner | None,
    warnings: tuple[str, ...] = (), *, streamed: bool = False, original: Original | None = None,
) -> Scores:  # fmt: skip
    """The table of finished sums. runner: the model in memory; None: it is read block by block.

    original: what the model itself puts out, where that is known.
    """
    samples = moments.items * effort.directions * effort.spans.count
    loss, stderr = moments.mean(), moments.stderr(samples)
    unmeasured: tuple[str, ...] = ()
    known = known & heard(loss, task.deltas.energies())
    if not known.all():
        loss, stderr, unmeasured = fill_unmeasured(task, loss, stderr, known)
    resampled = np.where(known[:, None], moments.resampled(), loss)
    told = {"samples_an_item": effort.samples, "directions_an_item": effort.directions, "items": moments.items}
    if effort.spans.count > 1:
        told |= {"span": effort.spans.length, "spans_an_item": effort.spans.count}
    signed = moments.signed()
    extras = {"resampled": resampled} if len(resampled) else {}
    if effort.pools:
        measured = np.stack([loss, stderr, task.deltas.energies()])
        pool = pooling(*measured)
        loss, extras = pool.apply(loss), {AS_MEASURED: measured, **extras}
        stderr = pool.stderr(loss, stderr)
    response = measure_response(task, runner, loss, original)
    return Scores(
        loss=loss, stderr=stderr, loss_unit=effort.loss_unit, tokens=required(task).tokens,
        samples=samples, parameters={**told, "streamed": True} if streamed else told, unmeasured=unmeasured,
        warnings=warnings, extras=extras if signed is None else {**extras, "signed": signed},
        response=response.to_json(),
    )  # fmt: skip
