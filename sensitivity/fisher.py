"""`fisher`: predicted KL from labels that the model draws itself (research/08, there `fisher-seq`; the default).

For every item s and direction k (a set of labels drawn from the model's own output, one a position; see heads.py):

    score[u, f, s, k] = < d/dW_u sum_t log p(y_t | x), dW_u,f >        summed over the item's positions BEFORE squaring
    loss[u, f]        = 1/2 mean over s of (sum over k of weight_k score^2) / positions

which is the second-order KL of the quantized from the original model, in nats per token (items and sentences for other
heads). Summing first keeps the covariance between positions; treating tokens as independent errs by up to 93 % on the
ViT of research/08 (section 2e). Cost: one forward and K backward passes a batch; formats cost inner products.

stderr[u, f] = standard deviation over items of the item's value / sqrt(items): items are independent, the samples of
one item are not quite, so items are what is counted. Where scores are Gaussian it is near loss x sqrt(2 / samples).
"""

from __future__ import annotations

import torch

from bitwright.core.errors import InvalidCalibration
from sensitivity.base import Scores, ScoringTask
from sensitivity.fallback import fill_unmeasured
from sensitivity.moments import Moments
from sensitivity.passes import Batch, batches, plan_passes
from sensitivity.runner import load_runner


def item_losses(batch: Batch) -> torch.Tensor:
    """float64 (items, units, formats): half the weighted sum of squared scores of an item, over its positions."""
    return torch.einsum("kb,kbuf->buf", batch.weight, batch.scores.square()) / (2 * batch.norm)


class Fisher:
    """The default metric."""

    name = "fisher"
    needs_data = True
    options = frozenset[str]()

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        if task.data is None:
            raise InvalidCalibration(
                "this metric needs calibration data", hint="leave --calibration out for the bundled one"
            )
        runner = load_runner(task.source, task.inventory)
        task.deltas.energies(task.progress)
        plan = plan_passes(runner, task.data, len(task.formats), task.samples, task.seed)
        moments = Moments(*task.shape, task.partial)
        for batch in batches(runner, task.data, task.deltas, plan, task.seed, task.progress, moments.items):
            moments.add(item_losses(batch), (batch.scores != 0).any(0).any(0).any(1).numpy())
        samples = moments.items * plan.directions
        exact = task.deltas.energies().max(axis=1, initial=0.0) == 0
        loss, stderr, unmeasured = fill_unmeasured(
            task, moments.mean(), moments.stderr(samples), moments.reached | exact
        )
        return Scores(
            loss=loss, stderr=stderr, loss_unit=runner.head.loss_unit, tokens=task.data.tokens, samples=samples,
            parameters={"samples_an_item": plan.samples, "directions_an_item": plan.directions, "items": moments.items},
            unmeasured=unmeasured, warnings=runner.warnings,
        )  # fmt: skip


METRIC = Fisher()
