"""`lrp`: relevance that passes through a layer, times the layer's measured output error (LRP-QViT, arXiv:2401.11243).

    Omega_u    = mean over items of the sum of positive relevance arriving at the output of layer u, summing to 1
    loss[u, f] = Omega_u  sum_t ||dW x_t||^2 / sum_t ||y_t||^2          (y the unquantized output of the layer)

Conservation makes the relevance of any full cut of the network the same, so what ranks layers is the relevance
through their own branch, after residuals have been shared out (research/02, 6 b2; the paper's own formula could not
be read, so this is a reading of its idea). Relevance starts at the predicted class or, at every position, the
predicted token. Rules and their conservation: relevance.py; the largest violation seen is told in `parameters` and
refused above TOLERANCE.

Loss unit: none. Cost: 1 forward and 1 backward pass for relevance (about 4 products a linear), 1 forward and F local
products for the errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, NotFinite, Unsupported
from sensitivity.base import Scores, ScoringTask
from sensitivity.capture import make_listener
from sensitivity.data import Data
from sensitivity.fallback import fill_unmeasured
from sensitivity.local import relative_output_errors
from sensitivity.partial import State
from sensitivity.relevance import Ledger, Propagation, norms_unchanged
from sensitivity.runner import Runner
from sensitivity.share import ALONE, Share
from sensitivity.whole import whole_runner

LOSS_UNIT = "relevance-weighted relative output error"
#: Items whose relevance is propagated at most (research/02 asks for 32 to 128).
ITEMS = 64
#: Largest violation of conservation at one operation, relative to the relevance that passes it (float32).
TOLERANCE = 1e-3


def relevance_through(runner: Runner, data: Data, share: Share = ALONE) -> tuple[NDArray[np.float64], dict[str, float]]:
    """((units,) positive relevance through each unit, summing to 1; largest violation by operation).

    share: who propagates the items. Raises Unsupported for operations without a rule, NotFinite.
    """
    through, violations = np.zeros(len(runner.inventory.units)), dict[str, float]()
    for item in share.gather(range(data.items), lambda run: _propagated(runner, data, run)):
        for unit, positive in zip(item["units"].tolist(), item["positive"].tolist(), strict=True):
            through[unit] += positive
        for name, value in zip(item["operations"].tolist(), item["violations"].tolist(), strict=True):
            violations[name] = max(violations.get(name, 0.0), value)
    if not np.isfinite(through).all():
        raise NotFinite("relevance became NaN or infinite", hint="use --metric fisher")
    return through / max(float(through.sum()), 1e-300), violations


def _propagated(runner: Runner, data: Data, run: range) -> Iterator[State]:
    """What went through the layers of each item: the uses of units in their order, violations by operation."""
    layers = make_listener(runner).layers
    model: Any = runner.model
    previous = getattr(model.config, "_attn_implementation", None)
    model.set_attn_implementation("eager")
    try:
        for row in run:
            ledger = Ledger()
            with torch.enable_grad(), norms_unchanged(model, ledger), Propagation(layers, ledger):
                output = runner.output(data.take(np.array([row])).trimmed())
            if row == run.start:
                _check_same(output.detach(), runner.output(data.take(np.array([row])).trimmed()))
            torch.autograd.backward(output, _start(output.detach()))
            yield {
                "units": np.array([unit for unit, _ in ledger.through], np.int64),
                "positive": np.array([positive for _, positive in ledger.through], np.float64),
                "operations": np.array([*ledger.violations], np.str_),
                "violations": np.array([*ledger.violations.values()], np.float64),
            }
    finally:
        if previous is not None:
            model.set_attn_implementation(previous)


def _check_same(watched: torch.Tensor, plain: torch.Tensor) -> None:
    """Raises Unsupported when the model computes something else while it is watched."""
    if not bool(torch.allclose(watched, plain.detach(), rtol=1e-3, atol=1e-4 * float(plain.detach().abs().max()))):
        raise Unsupported(
            "this model changes tensors in place in a way that relevance cannot follow", hint="use --metric fisher"
        )


def _start(output: torch.Tensor) -> torch.Tensor:
    """One-hot at the largest output of every position; of embeddings, each coordinate's share of the squared length."""
    if output.ndim == 2 and bool(torch.isclose(output.norm(dim=-1), output.new_ones(len(output))).all()):
        return output.square()
    return torch.nn.functional.one_hot(output.argmax(-1), output.shape[-1]).to(output.dtype)


class Lrp:
    """Relevance times output error."""

    name = "lrp"
    needs_data = True
    options = frozenset[str]()

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric. Raises NotFinite when relevance is not conserved."""
        if task.data is None:
            raise InvalidCalibration("lrp needs calibration data", hint="leave --calibration out for the bundled one")
        runner = whole_runner(task, "lrp")
        few = task.data.take(np.arange(min(ITEMS, task.data.items)))
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
            unmeasured=unmeasured, warnings=runner.warnings,
            parameters={"items": few.items, "conservation": {name: float(v) for name, v in violations.items()}},
        )  # fmt: skip


METRIC = Lrp()
