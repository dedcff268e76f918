"""`hessian`: squared error of the layer's own output, tr(dW H dW') with H = mean of x x' (the GPTQ proxy; a baseline).

    loss[u, f] = mean over items, sum over t of ||dW x_t||^2 / positions

Tokens that do not reach an expert count as zero, so the sum weighs experts by how often they are used. Not in nats:
research/08 measured plans 1.6 to 10 times worse in KL than `fisher`, and more so as bits grow. Cost: 1 forward and F
local products of every layer.
"""

from __future__ import annotations

import torch

from sensitivity.base import Scores, ScoringTask
from sensitivity.layers import Layer, Passes
from sensitivity.local import simple_scores
from sensitivity.stream_options import OPTIONS

LOSS_UNIT = "squared output error"


def _cells(layer: Layer) -> torch.Tensor:
    columns = [layer.output_error(c).square().sum((1, 2)).double() for c in range(len(layer.errors))]
    return torch.stack(columns, dim=-1)


class Hessian:
    """The layer-output error."""

    name = "hessian"
    needs_data = True
    options = OPTIONS

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        return simple_scores(task, Passes("none"), _cells, LOSS_UNIT)


METRIC = Hessian()
