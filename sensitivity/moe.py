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

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, InvalidInput
from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import unit_weight
from sensitivity.expert_blocks import expert_blocks
from sensitivity.fallback import fill_unmeasured
from sensitivity.local import relative_output_errors
from sensitivity.partial import State
from sensitivity.routing import Block, no_experts, outlier_scores, run_block
from sensitivity.runner import Runner
from sensitivity.share import by_units
from sensitivity.stream_options import OPTIONS, streams

LOSS_UNIT = "weighted relative block error"
#: Tokens that blocks are run on at most.
BLOCK_TOKENS = 4096
EXPONENTS = {"alpha": 1.0, "beta": 1.5, "gamma": 1.0}


class Moe:
    """Options alpha, beta, gamma: exponents of routing frequency, weight and block error; together: see above; stream,
    dtype, activation_mib: see stream_options.py."""

    name = "moe"
    needs_data = True
    options = frozenset({*EXPONENTS, "together", *OPTIONS})

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric. Raises Unsupported for dense models."""
        if task.data is None:
            raise InvalidCalibration("moe needs calibration data", hint="leave --calibration out for the bundled one")
        powers = {name: _exponent(task, name) for name in EXPONENTS}
        together = task.options.get("together", False)
        if not isinstance(together, bool):
            raise InvalidInput("the option together of moe is true or false", got=repr(together)[:80])
        size = max(1.0, task.data.tokens / task.data.items)
        few = task.data.take(np.arange(min(task.data.items, max(1, round(BLOCK_TOKENS / size)))))
        experts = _experts(task)
        warnings: list[str] = []

        def rows(some: tuple[int, ...]) -> Iterator[tuple[int, State]]:
            wanted = set(some)
            for runner, block in expert_blocks(task, few):
                warnings[:] = runner.warnings
                for number, units in block.experts.items():
                    if units[0] in wanted:
                        yield from _rows(task, runner, block, number, together)
                task.progress("score", (max(max(block.experts.values())) + 1) / task.shape[0], block.module)

        found = by_units(task, experts, rows)
        experts = [units for units in experts if units[0] in found]
        _require_traffic([float(found[units[0]]["frequency"]) for units in experts], few.tokens)
        others = set(range(task.shape[0])).difference(*experts)
        loss = relative_output_errors(task, others) ** (powers["gamma"] / 2)
        for units in experts:
            for unit in units:
                told = found[unit]
                used = told["frequency"] ** powers["alpha"] * told["weight"] ** powers["beta"]
                loss[unit] = used * told["errors"] ** powers["gamma"] / (len(units) if together else 1)
        exact = task.deltas.energies().max(axis=1, initial=0.0) == 0
        reached = (loss.max(axis=1, initial=0.0) > 0) | exact
        loss, stderr, unmeasured = fill_unmeasured(task, loss, np.full(task.shape, np.nan), reached)
        streamed = {"streamed": True} if streams(task) else {}
        return Scores(
            loss=loss, stderr=stderr, loss_unit=LOSS_UNIT, tokens=few.tokens, samples=few.items,
            unmeasured=unmeasured, warnings=tuple(warnings),
            parameters={**powers, "together": together, **streamed, **_facts(task, [found[u[0]] for u in experts])},
        )  # fmt: skip


def _experts(task: ScoringTask) -> list[tuple[int, ...]]:
    """Unit numbers of every expert. Raises Unsupported for dense models."""
    found: dict[tuple[int | None, int], list[int]] = {}
    for number, unit in enumerate(task.inventory.units):
        if unit.expert is not None:
            found.setdefault((unit.layer, unit.expert), []).append(number)
    if not found:
        raise no_experts(task.inventory)
    return [tuple(units) for units in found.values()]


def _rows(
    task: ScoringTask, runner: Runner, block: Block, number: int, together: bool
) -> Iterator[tuple[int, State]]:  # fmt: skip
    """What is known of an expert, by its units."""
    units = block.experts[number]
    told: State = {
        "frequency": np.asarray(block.frequency()[number]), "weight": np.asarray(block.weight()[number]),
        "cosine": np.asarray(block.cosine()), "module": np.asarray(block.module),
    }  # fmt: skip
    for unit, errors in zip(units, block_errors(task, runner, block, number, together=together), strict=True):
        yield unit, {**told, "errors": errors, "energy": task.deltas.energy(unit)}


def _require_traffic(frequency: Sequence[float], tokens: int) -> None:
    """Raises InvalidCalibration where most experts were never chosen: a few can be guessed from the others."""
    reached, experts = sum(share > 0 for share in frequency), len(frequency)
    if not experts or 2 * reached < experts:
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
        errors = np.zeros(task.shape[1])
        for column, changes in enumerate(zip(*map(task.deltas.errors, members), strict=True)):
            changed = {s.name: w + change for s, w, change in zip(specs, weights, changes, strict=True)}
            with runner.replaced(changed):
                errors[column] = float((run_block(runner, block, tokens) - original).double().norm()) / norm
        found.append(errors)
    return found * len(units) if together else found


def _facts(task: ScoringTask, experts: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Of what is known of every expert, by module: shares of routes and of weight, and the block's cosine."""
    frequency: dict[str, list[float]] = {}
    weight: dict[str, list[float]] = {}
    for told in experts:
        frequency.setdefault(str(told["module"]), []).append(float(told["frequency"]))
        weight.setdefault(str(told["module"]), []).append(float(told["weight"]))
    scores = outlier_scores(unit_weight(task.source, unit) for unit in task.inventory.units)
    return {
        "frequency": frequency,
        "weight": weight,
        "block_cosine": {str(told["module"]): float(told["cosine"]) for told in experts},
        "outlier_score": {unit.name: float(s) for unit, s in zip(task.inventory.units, scores, strict=True)},
    }


METRIC = Moe()
