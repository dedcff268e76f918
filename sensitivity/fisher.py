"""`fisher`: predicted KL from labels that the model draws itself (research/08, there `fisher-seq`; the default).

For every item s and direction k (a set of labels drawn from the model's own output, one a position; see heads.py):

    score[u, f, s, k] = < d/dW_u sum_t log p(y_t | x), dW_u,f >        summed over the item's positions BEFORE squaring
    loss[u, f]        = 1/2 mean over s of (sum over k of weight_k score^2) / positions

which is the second-order KL of the quantized from the original model, in nats per token (items and sentences for other
heads). Summing first keeps the covariance between positions; treating tokens as independent errs by up to 93 % on the
ViT of research/08 (section 2e). Cost: one forward and K backward passes a batch; formats cost inner products.

stderr[u, f] = standard deviation over items of the item's value / sqrt(items): items are independent, the samples of
one item are not quite, so items are what is counted. Where scores are Gaussian it is near loss x sqrt(2 / samples).

Two things make one set of labels enough: spans of a sequence are squared one by one (spans.py), and the cells of a unit
are pooled over its formats (pooling.py). Both for language models alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput
from sensitivity import parts
from sensitivity.base import Scores, ScoringTask
from sensitivity.fisher_streamed import stream_scores
from sensitivity.fisher_table import Spent, finished, keeps_signed, make_moments, required
from sensitivity.on_device import back
from sensitivity.originals import originals
from sensitivity.parts_streamed import stream_parts
from sensitivity.passes import Batch, batches, count_batches, plan_passes
from sensitivity.precision import PILOT_ITEMS, Effort, Pilot, choose
from sensitivity.response import anchor_rows
from sensitivity.runner import Runner, load_runner
from sensitivity.share import Values, add_up
from sensitivity.spans import spans_of
from sensitivity.stream_options import OPTIONS, streams


def item_losses(batch: Batch) -> torch.Tensor:
    """float64 (items, units, formats): half the weighted sum of squared scores of an item, over its positions."""
    return torch.einsum("kb,kbuf->buf", batch.weight, batch.scores.square()) / (2 * batch.norm)


class Fisher:
    """The default metric.

    Options: `relative_error`: the median relative standard error of cells that is wanted; label samples and items are
    then chosen for it (see precision.py), within the data given. `keep_samples`: keep the signed scores themselves
    (float32, items x samples, units, formats) beside the table, however many there are. And stream_options.py.
    """

    name = "fisher"
    needs_data = True
    options = frozenset({"relative_error", "keep_samples", "span", *OPTIONS})

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        if streams(task):
            return stream_scores(task)
        runner = load_runner(task.source, task.inventory)
        task.deltas.energies(task.progress)
        task, warnings = _wanted_effort(task, runner)
        data = required(task)
        plan = plan_passes(runner, data, len(task.formats), task.samples, task.seed, spans_of(task, runner.head))
        moments, keeping = make_moments(task, task.partial), keeps_signed(task, plan.scores_an_item)
        kept = originals(runner, data, plan, len(anchor_rows(data)))

        def compute(run: range) -> Iterator[Values]:
            for batch in batches(runner, data, task.deltas, plan, task.seed, task.progress, run):
                reached = (batch.scores != 0).any(0).any(0).any(1).cpu().numpy()
                signed = _signed(batch) if keeping else None
                if kept is not None:
                    kept.keep(batch)
                yield Values(back(item_losses(batch)), reached, batch.rows, plan.scores_an_item, signed)

        add_up(moments, task.share, count_batches(data, plan), plan.batch_items, compute)
        known = moments.reached | (task.deltas.energies().max(axis=1, initial=0.0) == 0)
        effort = Spent(plan.samples, plan.directions, plan.spans, runner.head.loss_unit, runner.head.label_a_position)
        return finished(task, moments, known, effort, runner, (*runner.warnings, *warnings), original=kept)

    def score_parts(self, task: ScoringTask) -> Scores:
        """As `score`, a row for each part of a unit (see parts.py)."""
        return stream_parts(task) if streams(task) else parts.fisher(task)


def _signed(batch: Batch) -> NDArray[np.float32]:
    """float32 (items, samples, units, formats), scaled so that the loss is half the mean square."""
    scale = (batch.weight * len(batch.weight) / batch.norm).sqrt()[:, :, None, None]
    signed: NDArray[np.float32] = (batch.scores * scale).float().transpose(0, 1).contiguous().cpu().numpy()
    return signed


def _wanted_effort(task: ScoringTask, runner: Runner) -> tuple[ScoringTask, tuple[str, ...]]:
    """The task with as many samples and items as its option `relative_error` needs, and what that could not reach."""
    wanted = task.options.get("relative_error")
    if wanted is None or task.data is None:
        return task, ()
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted < 1:
        raise InvalidInput("the option relative_error must be between 0 and 1", got=repr(wanted)[:80])
    few = task.data.take(np.arange(min(PILOT_ITEMS, task.data.items)))
    most, relative = task.data.items, float(wanted)

    def run_pilot() -> dict[str, Any]:
        plan = plan_passes(runner, few, len(task.formats), task.samples, task.seed, spans_of(task, runner.head))
        pilot = Pilot()
        for batch in batches(runner, few, task.deltas, plan, task.seed, task.progress):
            squares = torch.einsum("kb,kbuf->kbuf", batch.weight * plan.directions, batch.scores.square())
            pilot.add(squares.reshape(plan.directions, plan.spans.count, *squares.shape[1:]).sum(1))
        return asdict(choose(pilot, relative, most))

    effort = Effort(**task.share.decide("effort", run_pilot))
    samples = effort.samples if task.samples is None else task.samples
    chosen = replace(task, data=task.data.take(np.arange(effort.items)), samples=samples)
    if effort.expected > wanted:
        told = f"relative error {effort.expected:.3f} instead of {wanted}: all {effort.items} items are used"
        return chosen, (told,)
    return chosen, ()


METRIC = Fisher()
