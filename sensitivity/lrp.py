"""`lrp`: relevance that passes through a layer, times the layer's measured output error (LRP-QViT, arXiv:2401.11243).

    Omega_u    = mean over items of the sum of positive relevance arriving at the output of layer u, summing to 1
    loss[u, f] = Omega_u  sum_t ||dW x_t||^2 / sum_t ||y_t||^2          (y the unquantized output of the layer)

Conservation makes the relevance of any full cut of the network the same, so what ranks layers is the relevance
through their own branch, after residuals have been shared out (research/02, 6 b2; the paper's own formula could not
be read, so this is a reading of its idea). Relevance starts at the predicted class or, at every position, the
predicted token. Rules and their conservation: relevance.py; the largest violation seen is told in `parameters` and
refused above TOLERANCE.

Loss unit: none. Cost: 1 forward and 1 backward pass for relevance (about 4 products a linear), 1 forward and F local
products for the errors; block by block the forward pass twice (relevance_streamed.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, NotFinite
from sensitivity.base import Scores, ScoringTask
from sensitivity.blocks import open_blocks
from sensitivity.capture import make_listener
from sensitivity.data import Data
from sensitivity.fallback import fill_unmeasured
from sensitivity.local import relative_output_errors
from sensitivity.partial import State
from sensitivity.relevance import Ledger, Propagation, check_same, eager_attention, norms_unchanged, start
from sensitivity.relevance_streamed import propagate
from sensitivity.runner import Runner, load_runner
from sensitivity.share import ALONE, Share
from sensitivity.stream_options import OPTIONS, streams
from sensitivity.streaming import group_items

LOSS_UNIT = "relevance-weighted relative output error"
#: Items whose relevance is propagated at most (research/02 asks for 32 to 128).
ITEMS = 64
#: Largest violation of conservation at one operation, relative to the relevance that passes it (float32).
TOLERANCE = 1e-3


def relevance_through(runner: Runner, data: Data, share: Share = ALONE) -> tuple[NDArray[np.float64], dict[str, float]]:
    """((units,) positive relevance through each unit, summing to 1; largest violation by operation).

    share: who propagates the items. Raises Unsupported for operations without a rule, NotFinite.
    """
    pieces = share.gather(range(data.items), lambda run: _in_memory(runner, data, run))
    return _added(pieces, len(runner.inventory.units))


def _streamed(task: ScoringTask, data: Data) -> tuple[NDArray[np.float64], dict[str, float]]:
    """The same of a model that is read block by block, some items at a time."""
    model, size = open_blocks(task.source, task.inventory), group_items(data)
    count = -(-data.items // size)

    def compute(run: range) -> Iterator[State]:
        for number in run:
            rows = range(number * size, min((number + 1) * size, data.items))
            yield propagate(task, model, data, rows, (number / count / 2, (number + 1) / count / 2)).arrays()

    return _added(task.share.gather(range(count), compute), len(task.inventory.units))


def _added(pieces: Iterator[State], units: int) -> tuple[NDArray[np.float64], dict[str, float]]:
    through, violations = np.zeros(units), dict[str, float]()
    for item in pieces:
        for unit, positive in zip(item["units"].tolist(), item["positive"].tolist(), strict=True):
            through[unit] += positive
        for name, value in zip(item["operations"].tolist(), item["violations"].tolist(), strict=True):
            violations[name] = max(violations.get(name, 0.0), value)
    if not np.isfinite(through).all():
        raise NotFinite("relevance became NaN or infinite", hint="use --metric fisher")
    return through / max(float(through.sum()), 1e-300), violations


def _in_memory(runner: Runner, data: Data, run: range) -> Iterator[State]:
    """Item by item."""
    layers = make_listener(runner).layers
    with eager_attention(runner.model):
        for row in run:
            ledger = Ledger()
            with torch.enable_grad(), norms_unchanged(runner.model, ledger), Propagation(layers, ledger):
                output = runner.output(data.take(np.array([row])).trimmed())
            if row == run.start:
                check_same(output.detach(), runner.output(data.take(np.array([row])).trimmed()))
            torch.autograd.backward(output, start(output.detach()))
            yield ledger.arrays()


class Lrp:
    """Relevance times output error."""

    name = "lrp"
    needs_data = True
    # In bfloat16 what is conserved is not told from what is not.
    options = OPTIONS - {"dtype"}

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric. Raises NotFinite when relevance is not conserved."""
        if task.data is None:
            raise InvalidCalibration("lrp needs calibration data", hint="leave --calibration out for the bundled one")
        few, warnings = task.data.take(np.arange(min(ITEMS, task.data.items))), tuple[str, ...]()
        if streams(task):
            task.deltas.keep_nothing()
            through, violations = _streamed(task, few)
        else:
            runner = load_runner(task.source, task.inventory)
            warnings = runner.warnings
            through, violations = relevance_through(runner, few, task.share)
        worst = max(violations.values(), default=0.0)
        if worst > TOLERANCE:
            raise NotFinite(
                "relevance is not conserved in this model", expected=f"within {TOLERANCE} at every operation",
                got=f"{worst:.2g} at {max(violations, key=lambda name: violations[name])}",
                hint="use --metric fisher",
            )  # fmt: skip
        loss = through[:, None] * relative_output_errors(task)
        exact = task.deltas.energies().max(axis=1, initial=0.0) == 0
        reached = (loss.max(axis=1, initial=0.0) > 0) | exact
        loss, stderr, unmeasured = fill_unmeasured(task, loss, np.full(task.shape, np.nan), reached)
        return Scores(
            loss=loss, stderr=stderr, loss_unit=LOSS_UNIT, tokens=task.data.tokens, samples=few.items,
            unmeasured=unmeasured, warnings=warnings,
            parameters={
                "items": few.items, "conservation": {name: float(v) for name, v in violations.items()},
                **({"streamed": True} if streams(task) else {}),
            },
        )  # fmt: skip


METRIC = Lrp()
