"""`fisher-pooled`: `fisher-token` times one factor a unit.

The factor is the geometric mean of `fisher` / `fisher-token` over formats. It holds what the covariance
between positions does to a unit, and is pooled over formats because its noise is large and its dependence on the format
small. Research/08 (2a, 2g): as good as the largest calibration already at 4 k
tokens on language models; not good on the ViT, where the factor does depend on the format. Cost: as `fisher-token`.
"""

from __future__ import annotations

import numpy as np
import torch

from sensitivity.base import Scores, ScoringTask
from sensitivity.fisher_token import token_squares
from sensitivity.layers import Layer, Passes
from sensitivity.local import finished, measure_layers
from sensitivity.stream_options import OPTIONS


def sequence_squares(layer: Layer) -> torch.Tensor:
    """float64 (items, formats): the sum over positions squared, as in `fisher`, for one use of a layer."""
    columns = []
    for column in range(len(layer.errors)):
        error = layer.output_error(column)
        scores = torch.stack([(error * gradient).sum((1, 2)).double().square() for gradient in layer.gradients])
        columns.append(0.5 * (layer.weights * scores).sum(0))
    return torch.stack(columns, dim=-1)


def _both(layer: Layer) -> torch.Tensor:
    return torch.cat([token_squares(layer), sequence_squares(layer)], dim=-1)


class FisherPooled:
    """Token metric with a sequence factor for each unit."""

    name = "fisher-pooled"
    needs_data = True
    options = OPTIONS

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        measured = measure_layers(task, Passes("drawn", columns_a_format=2), _both)
        formats = task.shape[1]
        mean, error = measured.moments.mean(), measured.moments.stderr(measured.moments.items)
        token, sequence = mean[:, :formats], mean[:, formats:]
        known = (token > 0) & (sequence > 0)
        logs = np.log(np.divide(sequence, token, out=np.ones_like(token), where=known))
        factor = np.exp(logs.sum(axis=1) / np.maximum(1, known.sum(axis=1)))[:, None]
        return finished(task, measured, token * factor, error[:, :formats] * factor, measured.ran.head.loss_unit)


METRIC = FisherPooled()
