"""`moe`: how often and how heavily an expert is used, times what quantizing it does to its block (MC-MoE).

    loss[u, f] = phi^alpha  w^beta  eps^gamma,
    eps[u, f]  = || Z - Z'(only unit u in format f) ||_F / || Z ||_F

for every matrix of an expert: phi its share of the block's routes, w its share of the routing weight, Z the block's
output on the calibration tokens, the router and all else unquantized. The paper (arXiv:2410.06270) takes whole
experts: with the option `together` eps is that of all of an expert's matrices quantized at once, and each of them bears
an equal part of the expert's loss, so that tied ones (granularity `expert`) sum to it. The paper's exponents are
(1, 1, 2); its code's effective (1, 1.5, 1) reproduces all of its published plans (research/02 section 1) and is the
default here. The paper gives every block the same budget; dividing by ||Z||
is this project's way to compare blocks. Units outside experts: phi = w = 1 and eps of their own layer's output.

Loss unit: none (relative block error, weighted). Cost: 1 forward pass, and units x formats passes of one block over
the tokens of one expert. Experts that no token reaches are filled as stated in fallback.py. Provenance holds
QuantMoE-Bench's outlier score of every unit and the cosine of every block (arXiv:2406.08155), the routing shares,
and the exponents.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, InvalidInput
from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import unit_weight
from sensitivity.fallback import fill_unmeasured
from sensitivity.local import relative_output_errors
from sensitivity.partial import State
from sensitivity.routing import Block, outlier_scores, run_block, watch
from sensitivity.runner import Runner
from sensitivity.share import by_units
from sensitivity.whole import whole_runner

LOSS_UNIT = "weighted relative block error"
#: Tokens that blocks are run on at most.
BLOCK_TOKENS = 4096
EXPONENTS = {"alpha": 1.0, "beta": 1.5, "gamma": 1.0}


class Moe:
    """Options alpha, beta, gamma: exponents of routing frequency, weight and block error; together: see above."""

    name = "moe"
    needs_data = True
    options = frozenset({*EXPONENTS, "together"})

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric. Raises Unsupported for dense models."""
        if task.data is None:
            raise InvalidCalibration("moe needs calibration data", hint="leave --calibration out for the bundled one")
        powers = {name: _exponent(task, name) for name in EXPONENTS}
        together = task.options.get("together", False)
        if not isinstance(together, bool):
            raise InvalidInput("the option together of moe is true or false", got=repr(together)[:80])
        runner = whole_runner(task, "moe")
        size = max(1.0, task.data.tokens / task.data.items)
        few = task.data.take(np.arange(min(task.data.items, max(1, round(BLOCK_TOKENS / size)))))
        blocks = watch(runner, few)
        _require_traffic(blocks, few.tokens)
        loss = relative_output_errors(task) ** (powers["gamma"] / 2)
        experts = {units[0]: (block, number) for block in blocks for number, units in block.experts.items()}

        def rows(some: tuple[int, ...]) -> Iterator[tuple[int, State]]:
            for block, number in [experts[unit] for unit in some if unit in experts]:
                units = block.experts[number]
                errors = block_errors(task, runner, block, number, together=together)
                for unit, error in zip(units, errors, strict=True):
                    yield unit, {"errors": error, "energy": task.deltas.energy(unit)}
                task.progress("score", (units[0] + 1) / task.shape[0], block.module)

        found = by_units(task, [block.experts[number] for block, number in experts.values()], rows)
        for block in blocks:
            phi, weight = block.frequency() ** powers["alpha"], block.weight() ** powers["beta"]
            for number, units in block.experts.items():
                share = len(units) if together else 1
                for unit in units:
                    loss[unit] = phi[number] * weight[number] * found[unit]["errors"] ** powers["gamma"] / share
        exact = task.deltas.energies().max(axis=1, initial=0.0) == 0
        reached = (loss.max(axis=1, initial=0.0) > 0) | exact
        loss, stderr, unmeasured = fill_unmeasured(task, loss, np.full(task.shape, np.nan), reached)
        return Scores(
            loss=loss, stderr=stderr, loss_unit=LOSS_UNIT, tokens=few.tokens, samples=few.items,
            unmeasured=unmeasured, warnings=runner.warnings,
            parameters={**powers, "together": together, **_facts(task, blocks)},
        )  # fmt: skip


def _require_traffic(blocks: list[Block], tokens: int) -> None:
    """Raises InvalidCalibration where most experts were never chosen: a few can be guessed from the others."""
    reached = sum(int(block.chosen[:, list(block.experts)].any(dim=0).sum()) for block in blocks)
    experts = sum(len(block.experts) for block in blocks)
    if 2 * reached < experts:
        raise InvalidCalibration(
            "the calibration data reaches too few experts to tell how they are used",
            expected=f"routes to at least half of the {experts} experts", got=f"{reached} experts in {tokens} tokens",
            hint="give more text, or text like that the model will meet (--calibration, --calibration-tokens)",
        )  # fmt: skip


def _exponent(task: ScoringTask, name: str) -> float:
    value = task.options.get(name, EXPONENTS[name])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 4:
        raise InvalidInput(f"the option {name} of moe must be above 0 and at most 4", got=repr(value)[:80])
    return float(value)


def block_errors(
    task: ScoringTask, runner: Runner, block: Block, expert: int, *, together: bool = False
) -> list[NDArray[np.float64]]:
    """For each matrix of the expert, (formats,) errors of the block's output relative to its norm over all tokens.

    together: of all its matrices at once, the same for each. Only the expert's own tokens are run: on the others
    nothing changes.
    """
    tokens, units = torch.nonzero(block.chosen[:, expert])[:, 0], block.experts[expert]
    if not len(tokens):
        return [np.zeros(task.shape[1]) for _ in units]
    norm = float(block.outputs.double().norm())
    original = run_block(runner, block, tokens)
    found = []
    for members in [units] if together else [(unit,) for unit in units]:
        specs = [task.inventory.units[unit] for unit in members]
        weights = [unit_weight(task.source, spec) for spec in specs]
        stacks = [task.deltas.stack(unit) for unit in members]
        errors = np.zeros(task.shape[1])
        for column in range(task.shape[1]):
            changed = {s.name: w + e[column] for s, w, e in zip(specs, weights, stacks, strict=True)}
            with runner.replaced(changed):
                errors[column] = float((run_block(runner, block, tokens) - original).double().norm()) / norm
        found.append(errors)
    return found * len(units) if together else found


def _facts(task: ScoringTask, blocks: list[Block]) -> dict[str, object]:
    scores = outlier_scores([unit_weight(task.source, unit) for unit in task.inventory.units])
    return {
        "frequency": {block.module: block.frequency().tolist() for block in blocks},
        "weight": {block.module: block.weight().tolist() for block in blocks},
        "block_cosine": {block.module: block.cosine() for block in blocks},
        "outlier_score": {unit.name: float(s) for unit, s in zip(task.inventory.units, scores, strict=True)},
    }


METRIC = Moe()
