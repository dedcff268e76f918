"""`salience`: SliM-LLM's weight salience (arXiv:2405.14917), by block of input columns.

    delta_ij = w_ij^2 / U_jj^2,   U'U = H^-1 (U upper triangular),   H = 2/n sum over tokens of x x', damped

is what taking out weight ij costs the layer's output once the weights behind it make up for it (the OBS quantity of
GPTQ's column order; the paper prints [H^-1]_jj, its code and this use U_jj, research/01 section 3). Blocks of input
columns with large delta deserve bits: `block_salience` gives their means, which the recipe ranks.

As a loss the same cost is asked of the quantization error instead of the whole weight:

    loss[u, f] = sum_ij dW_ij^2 / U_jj^2      and, by block, the sum over the block's columns

Loss unit: squared output error after compensation, not nats; layers are not weighed against each other. Cost: 1
forward pass for H, an inverse a layer. Tokens that do not reach an expert count as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, Unsupported
from bitwright.core.mixed_format import cut
from quantizers.arithmetic import arithmetic
from quantizers.hessian import damped
from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import unit_weight
from sensitivity.fallback import fill_unmeasured
from sensitivity.input_groups import Inputs
from sensitivity.partial import State
from sensitivity.stream_options import OPTIONS

LOSS_UNIT = "compensated squared output error"
#: Columns of a block, the paper's group.
BLOCK_COLUMNS = 128
DAMPING = 0.01

Floats = NDArray[np.float64]


def column_costs(hessian: NDArray[np.float32], tokens: int) -> Floats:
    """1 / U_jj^2 of every input column. hessian: (in, in) sum of x x' over the tokens. Dead inputs: as damped."""
    return arithmetic().column_costs(damped(np.asarray(hessian, np.float64) * (2.0 / max(1, tokens)), DAMPING))


def block_sums(columns: NDArray[np.float64], block: int) -> Floats:
    """Sums over blocks of the last axis, the last block perhaps short."""
    return np.add.reduceat(columns, np.arange(0, columns.shape[-1], block), axis=-1)


def block_salience(weight: NDArray[np.float32], costs: Floats, block: int = BLOCK_COLUMNS) -> Floats:
    """(blocks,) mean salience w^2 / U_jj^2 of every block of input columns. weight: (out, in)."""
    squares = np.square(weight.astype(np.float64)).sum(axis=0) * costs
    sizes = block_sums(np.ones(weight.shape[1]), block) * weight.shape[0]
    return np.asarray(block_sums(squares, block) / sizes, np.float64)


def column_errors(errors: NDArray[np.float32]) -> Floats:
    """(formats, in) squared errors summed over output rows. errors: (formats, out, in)."""
    return np.asarray(np.square(errors.astype(np.float64)).sum(axis=1), np.float64)


def unit_inputs(task: ScoringTask) -> Inputs:
    """Raises InvalidCalibration."""
    if task.data is None:
        raise InvalidCalibration("salience needs calibration data", hint="leave --calibration out for the bundled one")
    return Inputs(task, task.data)


def unit_costs(task: ScoringTask, inputs: Inputs, units: Sequence[int]) -> Iterator[tuple[int, Floats]]:
    """(unit number, (in,) costs of its columns) for each of these that some token reached; some units at a time."""
    for group in inputs.groups(units):
        known = {name: column_costs(hessian, inputs.data.tokens) for name, hessian in group.moments.items()}
        for number in group.units:
            leader = group.leaders.get(task.inventory.units[number].name)
            if leader is not None:
                yield number, known[leader]


def _shared(task: ScoringTask, inputs: Inputs, row: Callable[[int, Floats], Floats]) -> dict[int, Floats]:
    """Unit number -> what `row` makes of its number and costs, whoever computes it; reached units only.

    Raises Unsupported.
    """

    def rows(units: tuple[int, ...]) -> Iterator[tuple[int, State]]:
        for number, costs in unit_costs(task, inputs, units):
            yield number, {"row": row(number, costs), "energy": task.deltas.energy(number)}

    return {number: arrays["row"] for number, arrays in inputs.shared(rows).items()}


def block_losses(task: ScoringTask, block: int = BLOCK_COLUMNS) -> dict[str, tuple[Floats, Floats]]:
    """Unit name -> ((blocks,) salience, (blocks, formats) losses): what a plan by column block is made from."""
    found = {}
    for number, costs in unit_costs(task, unit_inputs(task), range(task.shape[0])):
        unit = task.inventory.units[number]
        losses = block_sums(column_errors(task.deltas.stack(number)) * costs, block).T.copy()
        found[unit.name] = (block_salience(unit_weight(task.source, unit), costs, block), losses)
    return found


class Salience:
    """SliM-LLM's cost of an error."""

    name = "salience"
    needs_data = True
    options = OPTIONS

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        inputs = unit_inputs(task)
        found = _shared(task, inputs, lambda number, costs: column_errors(task.deltas.stack(number)) @ costs)
        loss, reached = np.zeros(task.shape), np.zeros(task.shape[0], np.bool_)
        for number, row in found.items():
            loss[number], reached[number] = row, True
        loss, stderr, unmeasured = fill_unmeasured(task, loss, np.full(task.shape, np.nan), reached)
        return Scores(
            loss=loss, stderr=stderr, loss_unit=LOSS_UNIT, tokens=task.data.tokens if task.data else 0,
            samples=task.data.items if task.data else 0, unmeasured=unmeasured, warnings=inputs.warnings,
            parameters={"damping": DAMPING},
        )  # fmt: skip

    def score_parts(self, task: ScoringTask) -> Scores:
        """The same sums over the weights of each part, for every cut."""
        cuts = [cut(task.granularity, unit.shape, task.formats) for unit in task.inventory.units]

        def parts_of(number: int, costs: Floats) -> Floats:
            found, shape = cuts[number], task.inventory.units[number].shape
            weighed = np.square(task.deltas.stack(number).astype(np.float64)) * costs
            lines = found.to_lines(weighed, shape).sum(axis=-1).T
            return np.asarray(np.add.reduceat(lines, np.arange(0, found.lines, found.block), axis=0))

        inputs = unit_inputs(task)
        rows = _shared(task, inputs, parts_of)
        missing = tuple(unit.name for number, unit in enumerate(task.inventory.units) if number not in rows)
        if missing:
            raise Unsupported(
                "salience of parts has nothing to say of units that no token reaches",
                expected="calibration data that reaches every unit", got=f"{len(missing)} not reached: {missing[0]}",
                hint="use more calibration data, or plan by tensor",
            )  # fmt: skip
        loss = np.concatenate([rows[number] for number in range(task.shape[0])])
        return Scores(
            loss=loss, stderr=np.full(loss.shape, np.nan), loss_unit=LOSS_UNIT, warnings=inputs.warnings,
            tokens=task.data.tokens if task.data else 0, samples=task.data.items if task.data else 0,
            parameters={"damping": DAMPING},
        )  # fmt: skip


METRIC = Salience()
