"""`rank`: rules that order units, as losses (QuantMoE-Bench, arXiv:2406.08155).

The paper gives more bits to the top of a ranking. A ranking is a score a unit, and

    loss[u, f] = score_u  elements_u  4^-bits(f)

lets every solver walk it down: what a byte saves is proportional to the score alone, so units of one size are raised
in the order of the ranking. Option `by`:

    outlier     max over input columns of (largest / mean magnitude down the column); no data (the paper's scorer)
    frequency   the expert's share of its block's routes; 0 outside experts
    block       1 - cosine of the block's input and output: a block that changes much deserves bits. The paper's text
                says so; its released configs list "top cosine" and are read by that meaning (research/02 section 2).
                Options: `residual = true` compares the residual stream before and after the block; `predictor = true`
                takes the cosine that a small network learns to predict (cosine_predictor.py), as the paper does
    first       earlier layers first (a control of the paper)

Loss unit: none. Cost: no pass (`outlier`, `first`), else 1 forward. Nothing is measured of any format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, InvalidInput, Unsupported
from bitwright.core.formats import FloatFormat
from sensitivity.base import Scores, ScoringTask
from sensitivity.cosine_predictor import predict_cosine
from sensitivity.deltas import unit_weight
from sensitivity.expert_blocks import expert_blocks
from sensitivity.routing import Block, outlier_scores
from sensitivity.stream_options import OPTIONS

LOSS_UNIT = "score x weights x 4^-bits"
#: A score of zero would make all formats equal: units that no rule names stay behind all others, not outside.
FLOOR = 1e-6

Floats = NDArray[np.float64]


def _outlier(task: ScoringTask) -> Floats:
    return outlier_scores(unit_weight(task.source, unit) for unit in task.inventory.units)


def _first(task: ScoringTask) -> Floats:
    """1 for the first layer, falling evenly; units outside layers (the head) come last."""
    layers = max(1, task.inventory.layers)
    return np.array([0.0 if u.layer is None else 1.0 - u.layer / layers for u in task.inventory.units])


def _frequency(task: ScoringTask) -> Floats:
    scores = np.zeros(len(task.inventory.units))
    for block in _blocks(task):
        for number, units in block.experts.items():
            scores[list(units)] = block.frequency()[number]
    return scores


def _block(task: ScoringTask) -> Floats:
    scores = np.zeros(len(task.inventory.units))
    for block in _blocks(task, residual=_flag(task, "residual")):
        members = [unit for units in block.experts.values() for unit in units]
        scores[members] = 1.0 - _cosine(task, block)
        task.progress("score", 0.5, block.module)
    return scores


def _cosine(task: ScoringTask, block: Block) -> float:
    if not _flag(task, "predictor"):
        return block.cosine()
    if len(block.inputs) < 2 * block.sequence:
        raise InvalidCalibration(
            "the predictor learns from some sequences and is held against others", expected="at least 2 sequences",
            got=f"{len(block.inputs) // max(1, block.sequence)}", hint="give more calibration tokens",
        )  # fmt: skip
    before, after = (end.cpu() for end in block.ends())  # a small network, the same one everywhere: on the CPU
    return predict_cosine(before, after, block.sequence, task.seed).mean


def _flag(task: ScoringTask, name: str) -> bool:
    value = task.options.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"the option {name} of rank is true or false", got=repr(value)[:80])
    return value


def _blocks(task: ScoringTask, *, residual: bool = False) -> Iterator[Block]:
    if task.data is None:
        raise InvalidCalibration(
            "this ranking needs calibration data", hint="leave --calibration out for the bundled one"
        )
    if not any(unit.expert is not None for unit in task.inventory.units):
        raise Unsupported(
            "this ranking is about experts, and this model has none", got=task.inventory.architecture,
            hint='rank by "outlier" or "first"',
        )  # fmt: skip
    return (block for _, block in expert_blocks(task, task.data, residual=residual))


RANKINGS: dict[str, Callable[[ScoringTask], Floats]] = {
    "outlier": _outlier, "frequency": _frequency, "block": _block, "first": _first,
}  # fmt: skip


class Rank:
    """Rules as scores. Options `by`, `residual` and `predictor` of the ranking `block`; see stream_options.py."""

    name = "rank"
    needs_data = True
    options = frozenset({"by", "residual", "predictor", *OPTIONS})

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric. Raises InvalidInput for an unknown ranking, Unsupported for dense models."""
        by = task.options.get("by", "outlier")
        if by not in RANKINGS:
            raise InvalidInput("there is no such ranking", expected=", ".join(RANKINGS), got=repr(by)[:80])
        if by != "block" and any(_flag(task, name) for name in ("residual", "predictor")):
            raise InvalidInput(
                f"the ranking {by} has no such option", expected='by = "block"', got="residual, predictor"
            )
        task.progress("score", 0.0, f"ranking by {by}")
        scores = RANKINGS[by](task)
        top = max(float(scores.max(initial=0.0)), np.finfo(np.float64).tiny)
        elements = np.array([unit.elements for unit in task.inventory.units], np.float64)
        bits = np.array([float(format.bits) for format in task.formats])
        # A float format passes weights through: a ranking of errors has nothing to say about it.
        steps = np.where([isinstance(format, FloatFormat) for format in task.formats], 0.0, 4.0**-bits)
        loss = np.outer(np.maximum(scores, FLOOR * top) * elements, steps)
        task.progress("score", 1.0, f"ranking by {by}")
        named = {unit.name: float(score) for unit, score in zip(task.inventory.units, scores, strict=True)}
        options = {name: _flag(task, name) for name in ("residual", "predictor")}
        parameters = {"by": by, "scores": named, **{name: True for name, given in options.items() if given}}
        return Scores(loss=loss, stderr=np.zeros_like(loss), loss_unit=LOSS_UNIT, parameters=parameters)


METRIC = Rank()
