"""`gptq-loss`: BAQ's losses of columns (arXiv:2506.05664, research/01 section 1), and of any other part.

Pass A of BAQ: GPTQ in one reference format, and of every part the cost of its rounding there,

    L = 1/2 sum over its weights of ((w - q) / U_jj)^2,          H^-1 = U'U, columns in the order of GPTQ;

from it the law of a uniform error, loss(n levels) = L * (reference levels / n)^exponent, with exponent 1.95 as in the
released code (2 by theory). Pass B is the quantizer's own run with the plan's formats.

The reference is the format of the menu whose stored size is nearest to the plan's (ScoringTask.target; option `bits`).
Losses of a matrix are divided by the geometric mean of its losses a weight, so that the closed form gives every matrix
the same mean rate, as the paper does: its budget is one of each matrix. With the option `across = "model"` they stay as
they are and bits move between matrices. Losses are held to LEAST of their mean (1e-8 in the release, absolute there).

Cost: 1 forward pass for H, an inverse a layer, one run of GPTQ.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, InvalidInput, Unsupported
from bitwright.core.formats import FloatFormat, Format, IntFormat
from bitwright.core.mixed_format import cut, is_finer
from quantizers.gptq import Gptq
from quantizers.mixed import uniform
from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import unit_weight
from sensitivity.fallback import fill_unmeasured_parts
from sensitivity.input_groups import Inputs
from sensitivity.partial import State
from sensitivity.stream_options import OPTIONS

LOSS_UNIT = "compensated squared output error"
#: Released exponent of the law, and reference bits where no budget is known.
EXPONENT, BITS = 1.95, 3.0
#: Least loss of a part, as a share of the matrix's mean: columns of zeros have none.
LEAST = 1e-8

Floats = NDArray[np.float64]


class GptqLoss:
    """BAQ's losses."""

    name = "gptq-loss"
    needs_data = True
    options = frozenset({"bits", "exponent", "across", *OPTIONS})

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        return _scored(task)

    def score_parts(self, task: ScoringTask) -> Scores:
        """Losses of parts, for every cut."""
        return _scored(task)


METRIC = GptqLoss()


def part_losses(
    weight: NDArray[np.float32], hessian: NDArray[np.float32], format: Format, granularity: str, gptq: Gptq, name: str
) -> Floats:
    """(parts,) losses of a run of GPTQ in one format; a tensor is one part. hessian: (in, in) sum of x x'."""
    shape = (weight.shape[0], weight.shape[1])
    losses = np.zeros(shape)
    if not is_finer(granularity) or granularity.startswith("row"):
        gptq.quantize(weight, format, name=name, hessian=hessian, losses=losses)
    else:
        gptq.quantize_mixed(weight, uniform(granularity, format, shape), name=name, hessian=hessian, losses=losses)
    if not is_finer(granularity):
        return np.array([losses.sum()])
    found = cut(granularity, shape, (format,))
    lines = found.to_lines(losses, shape).sum(axis=1)
    return np.add.reduceat(lines, np.arange(0, found.lines, found.block))


def law(losses: Floats, reference: int, levels: Floats, exponent: float) -> Floats:
    """(parts, formats) losses of formats with so many levels (inf: none is lost) from those at `reference` levels."""
    return losses[:, None] * (reference / levels[None, :]) ** exponent


def _scored(task: ScoringTask) -> Scores:
    """One row a part, unit after unit."""
    if task.data is None:
        raise InvalidCalibration("gptq-loss needs calibration data", hint="leave --calibration out for the bundled one")
    bits, exponent, alike = _options(task)
    formats = [format for format in task.formats if isinstance(format, IntFormat)]
    if not formats or any(not isinstance(format, IntFormat | FloatFormat) for format in task.formats):
        raise Unsupported(
            "the law of gptq-loss is one of integer formats", expected="integer and 16-bit formats",
            got=", ".join(format.name for format in task.formats)[:200],
        )  # fmt: skip
    levels = np.array([format.levels if isinstance(format, IntFormat) else np.inf for format in task.formats])
    inputs, gptq, units = Inputs(task, task.data), Gptq(), task.inventory.units
    rows: list[Floats] = [np.zeros((_parts(task, number), len(levels))) for number in range(len(units))]
    reached = np.zeros(len(units), np.bool_)
    tokens = task.data.tokens

    def score(some: tuple[int, ...]) -> Iterator[tuple[int, State]]:
        for group in inputs.groups(some):
            leaders, moments = group.leaders, group.moments
            for number in group.units:
                unit = units[number]
                if leaders.get(unit.name) not in moments:
                    continue
                reference = min(formats, key=lambda format: abs(float(format.bits_per_weight(unit.shape)) - bits))
                weight = unit_weight(task.source, unit)
                hessian = moments[leaders[unit.name]] * np.float32(2 / max(1, tokens))
                losses = part_losses(weight, hessian, reference, task.granularity, gptq, unit.name)
                losses = np.maximum(losses, LEAST * max(float(losses.mean()), np.finfo(np.float64).tiny))
                if alike:
                    sizes = unit.elements / len(losses)
                    losses = losses * sizes / np.exp(np.log(losses).mean())
                yield number, {"row": law(losses, reference.levels, levels, exponent)}
                task.progress("score", (number + 1) / len(units), unit.name)

    for number, arrays in inputs.shared(score).items():
        rows[number], reached[number] = arrays["row"], True
    return _finished(task, rows, reached, inputs.warnings)


def _finished(task: ScoringTask, rows: list[Floats], reached: NDArray[np.bool_], warnings: tuple[str, ...]) -> Scores:
    """Units that no token reached are taken like the others of their role, by squared error."""
    loss, unit_of = np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    energy = np.concatenate([
        np.repeat(task.deltas.energy(i)[None], len(row), axis=0) / len(row) if not reached.all() else row
        for i, row in enumerate(rows)
    ])  # fmt: skip
    stderr = np.full(loss.shape, np.nan)
    loss, stderr, unmeasured = fill_unmeasured_parts(task, energy, unit_of, loss, stderr, reached)
    assert task.data is not None
    return Scores(
        loss=loss, stderr=stderr, loss_unit=LOSS_UNIT, tokens=task.data.tokens, samples=task.data.items,
        unmeasured=unmeasured, warnings=warnings, parameters={"target": task.target},
    )  # fmt: skip


def _parts(task: ScoringTask, number: int) -> int:
    shape = task.inventory.units[number].shape
    return cut(task.granularity, shape, task.formats).parts if is_finer(task.granularity) else 1


def _options(task: ScoringTask) -> tuple[float, float, bool]:
    bits, exponent = task.options.get("bits", task.target or BITS), task.options.get("exponent", EXPONENT)
    across = task.options.get("across", "matrix")
    numbers = all(isinstance(value, int | float) and 0 < value <= 64 for value in (bits, exponent))
    if not numbers or across not in ("matrix", "model"):
        raise InvalidInput(
            "gptq-loss cannot work with these options", expected="bits > 0, exponent > 0, across = matrix or model",
            got=f"bits={bits!r}, exponent={exponent!r}, across={across!r}"[:200],
        )  # fmt: skip
    # With one part a matrix, the same mean rate for each would be the uniform plan.
    return float(bits), float(exponent), across == "matrix" and is_finer(task.granularity)
