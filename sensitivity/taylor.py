"""`taylor`: first-order change counted without signs, |g . dW|, AutoRound's `AutoScheme` formula (a baseline).

    loss[u, f] = mean over items of sum over weights of |g_ij dW_ij| / positions,   g = d log p(item's labels) / dW

with the data's own labels, at the unquantized model (research/04 section 1, research/08 `autoround@fp`). Linear in dW,
so it underrates one large dangerous tensor (research/08 section 4.3). Cost: 1 forward, 1 backward, F products.
"""

from __future__ import annotations

import torch

from sensitivity.base import Scores, ScoringTask
from sensitivity.layers import Layer, Passes
from sensitivity.local import simple_scores
from sensitivity.stream_options import OPTIONS

LOSS_UNIT = "absolute first-order change"


def _cells(layer: Layer) -> torch.Tensor:
    gradient = torch.bmm(layer.gradients[0].transpose(1, 2), layer.inputs).abs().flatten(1)
    columns = [gradient @ layer.errors[column].abs().flatten() for column in range(len(layer.errors))]
    return torch.stack(columns, dim=-1).double()


class Taylor:
    """AutoRound's formula."""

    name = "taylor"
    needs_data = True
    options = OPTIONS

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        return simple_scores(task, Passes("observed"), _cells, LOSS_UNIT)


METRIC = Taylor()
