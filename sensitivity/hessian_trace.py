"""`hessian-trace`: mean curvature of a unit's weights times their squared error (HAWQ-V2, arXiv:1911.03852).

    loss[u, f] = 1/2 tr(F_u) / n_u  ||dW||^2,    tr(F_u) = E_y || d/dW_u sum_t log p(y_t) ||^2 / positions

Hutchinson's estimator tr(F) = E v'Fv (1990) of the Fisher information F = J' (output Fisher) J, with the score of
labels drawn from the model's own output as the random vector: its covariance is the output Fisher, so one backward
pass a draw gives the trace of every unit at once. Every weight of a unit counts the same: the direction of the error
is lost, which is what `fisher` keeps. Nats of KL if errors were isotropic. Cost: 1 forward, K backward; formats are
free.
"""

from __future__ import annotations

import torch

from sensitivity.base import Scores, ScoringTask
from sensitivity.layers import Layer, Passes
from sensitivity.local import simple_scores
from sensitivity.stream_options import OPTIONS


def _cells(layer: Layer) -> torch.Tensor:
    squares = torch.stack([torch.bmm(g.transpose(1, 2), layer.inputs).square().sum((1, 2)) for g in layer.gradients])
    trace = (layer.weights * squares.double()).sum(0)
    errors = [layer.errors[column] for column in range(len(layer.errors))]
    energy = torch.stack([error.double().square().sum() for error in errors])
    return 0.5 * trace[:, None] * energy[None] / errors[0].numel()


class HessianTrace:
    """Trace times squared error."""

    name = "hessian-trace"
    needs_data = True
    options = OPTIONS

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        return simple_scores(task, Passes("drawn"), _cells, None)


METRIC = HessianTrace()
