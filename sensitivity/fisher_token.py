"""`fisher-token`: as `fisher`, but positions count as independent: squares are taken a position (research/08, 2a).

    loss[u, f] = 1/2 mean over items, sum over t and k of weight_k (d_t . dW x_t)^2 / positions

Level with `fisher` on language models and steadier below 16 k tokens (research/08 section 2g); 34-82 % worse on the
ViT, whose token errors cancel before the class token. Cost: passes of `fisher`, and F local products of every layer.
"""

from __future__ import annotations

import torch

from sensitivity.base import Scores, ScoringTask
from sensitivity.layers import Layer, Passes
from sensitivity.local import simple_scores
from sensitivity.stream_options import OPTIONS


def token_squares(layer: Layer) -> torch.Tensor:
    """float64 (items, formats)."""
    columns = []
    for column in range(len(layer.errors)):
        error = layer.output_error(column)
        scores = torch.stack([(error * gradient).sum(-1).double().square().sum(-1) for gradient in layer.gradients])
        columns.append(0.5 * (layer.weights * scores).sum(0))
    return torch.stack(columns, dim=-1)


class FisherToken:
    """Tokens independent."""

    name = "fisher-token"
    needs_data = True
    options = OPTIONS

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        return simple_scores(task, Passes("drawn"), token_squares, None)


METRIC = FisherToken()
