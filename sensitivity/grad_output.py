"""`grad-output`: output error weighted by the squared gradient, ModelOpt's `auto_quantize` formula (a baseline).

    loss[u, f] = 1/2 mean over items, sum over t and o of g_to^2 (dW x_t)_o^2 / positions

with g = d log p(label) / d output of the layer and the data's own labels (next
tokens; the likeliest class where there are none; a noise direction for embeddings).
research/04 section 1; research/08 section 2: with free units and an exact solver level with `fisher` on language
models, 20 % behind on the ViT. Cost: 1 forward, 1 backward, and F local products of every layer.
"""

from __future__ import annotations

import torch

from sensitivity.base import Scores, ScoringTask
from sensitivity.layers import Layer, Passes
from sensitivity.local import simple_scores
from sensitivity.stream_options import OPTIONS

LOSS_UNIT = "gradient-weighted squared output error"


def _cells(layer: Layer) -> torch.Tensor:
    squared = layer.gradients[0].square()
    columns = [(layer.output_error(c).square() * squared).sum((1, 2)).double() for c in range(len(layer.errors))]
    return 0.5 * torch.stack(columns, dim=-1)


class GradOutput:
    """ModelOpt's formula."""

    name = "grad-output"
    needs_data = True
    options = OPTIONS

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        return simple_scores(task, Passes("observed"), _cells, LOSS_UNIT)


METRIC = GradOutput()
