"""`output-kl`: SliM-LLM's score, KL between the softmaxed outputs of a layer before and after (arXiv:2405.14917).

    loss = mean over tokens of KL(softmax(W x + b) || softmax(Q(W) x + b)),   the "vocabulary" being the layer's outputs

Nothing is propagated: it sees one layer at a time, and layers are not weighed against each other. By tensor the loss of
every format is given. By blocks of columns (`column:B`) it is what SliM-LLM searches with: of every matrix the blocks
are ranked by salience (`sensitivity.salience`), and a column of the table is one plan of the matrix, with p blocks of
less bits and p blocks of more than the others. The search in one dimension is thus the solver's least loss of a row;
the table holds every plan's score, and p = 0 is always among them.

The budget says where the plans lie (ScoringTask.target): as many more low than high blocks as pay for scales and zero
points, so that true bytes keep it. Where a uniform plan fits exactly the counts are equal, as in the paper.

Every plan is scored with the errors of the quantizer that will make the checkpoint. The release scores with those of
rounding to nearest (option `rounding = "nearest"`, one quantization a width instead of one a plan), which overrates
plans that raise outlier channels: GPTQ makes up for most of what rounding loses there (docs/recipes/slim-llm.md).
Decided otherwise than in the release, too: both sides have the layer's bias; the ranking uses the damping that the
quantizer uses; p = 0 and p = k / 2 are scored; KL goes from the original to the quantized layer (option `reverse`: the
release's).
Cost: 2 forward passes, and for each unit one quantization and one product with its inputs' sample a plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.balance import centre, dealt
from bitwright.core.errors import InvalidCalibration, InvalidInput, Unsupported
from bitwright.core.formats import IntFormat
from bitwright.core.mixed_format import Cut, cut, mixed, part_bytes
from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import Deltas, quantized_weight, unit_weight
from sensitivity.fallback import fill_unmeasured
from sensitivity.input_groups import Inputs
from sensitivity.on_device import computing, here
from sensitivity.partial import State
from sensitivity.salience import block_salience, column_costs
from sensitivity.stream_options import OPTIONS

LOSS_UNIT = "KL of a layer's softmaxed output"
#: Tokens whose outputs are compared, and plans of a matrix that are scored at most (the paper's 4096 inputs have 15).
TOKENS, RUNGS = 2048, 17
#: Whose errors plans are scored with: the first is the default, the second the release's.
ROUNDINGS = ("quantizer", "nearest")
#: Outputs handled at once.
CELLS = 1 << 24

Choices = NDArray[np.int64]


class OutputKl:
    """KL of each layer's own output."""

    name = "output-kl"
    needs_data = True
    options = frozenset({"tokens", "bits", "reverse", "rounding", *OPTIONS})

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric."""
        loss, reached = np.zeros(task.shape), np.zeros(task.shape[0], np.bool_)
        inputs = _inputs(task, ranked=False)

        def rows(units: tuple[int, ...]) -> Iterator[tuple[int, State]]:
            for number, layer, _ in _layers(task, inputs, units):
                row = [layer.kl(error) for error in task.deltas.on_device(number)]
                yield number, {"loss": np.array(row), "energy": task.deltas.energy(number)}

        for number, arrays in inputs.shared(rows).items():
            loss[number], reached[number] = arrays["loss"], True
        reached |= task.deltas.energies().max(axis=1, initial=0.0) == 0
        loss, stderr, unmeasured = fill_unmeasured(task, loss, np.full(task.shape, np.nan), reached)
        return _scores(task, inputs, loss, stderr, unmeasured)

    def score_parts(self, task: ScoringTask) -> Scores:
        """Plans of every matrix by blocks of columns. Raises Unsupported for other cuts, InvalidInput for no target."""
        ladder = _Ladder(task)
        inputs = _inputs(task, ranked=True)
        units = len(task.inventory.units)
        choices = [ladder.uniform(number) for number in range(units)]
        losses = [np.zeros(1) for _ in range(units)]
        reached = np.zeros(units, np.bool_)
        rounded = Deltas(task.source, task.inventory, task.formats, "rtn")
        nearest = _nearest(task)

        def rows(some: tuple[int, ...]) -> Iterator[tuple[int, State]]:
            for number, layer, salience in _layers(task, inputs, some):
                rungs = ladder.rungs(number, salience)
                if nearest:
                    row = list(layer.walk(rounded.stack(number), ladder.cuts[number], rungs))
                else:
                    row = [layer.kl(error) for error in ladder.errors(number, rungs)]
                yield number, {"rungs": rungs, "loss": np.array(row)}

        for number, arrays in inputs.shared(rows).items():
            choices[number], losses[number], reached[number] = arrays["rungs"], arrays["loss"], True
        width = max(map(len, choices))
        loss = np.full((units, width), np.inf)
        for row, values in zip(loss, losses, strict=True):
            row[: len(values)] = values
        loss[~reached, 0] = np.median(loss[reached, 0])
        menus = tuple(tuple([*ladder.names(number, choices[number]), *[""] * width][:width]) for number in range(units))
        missing = tuple(task.inventory.units[i].name for i in np.flatnonzero(~reached))
        scores = _scores(task, inputs, loss, np.full(loss.shape, np.nan), missing)
        return Scores(**{**vars(scores), "menus": menus})


METRIC = OutputKl()


class _Layer:
    """Outputs of one unit on a sample of its inputs (tokens, in)."""

    def __init__(self, inputs: torch.Tensor, weight: NDArray[np.float32], bias: torch.Tensor | None, reverse: bool):
        self.inputs = inputs.to(computing())
        self.output = self.inputs @ here(weight).T
        if bias is not None:
            self.output += bias
        self.reverse = reverse

    def kl(self, error: torch.Tensor) -> float:
        """Mean KL when `error` (out, in) is added to the weights."""
        return self.divergence(self.inputs @ error.T)

    def divergence(self, change: torch.Tensor) -> float:
        """Mean KL when `change` (tokens, out) is added to the outputs."""
        total, step = 0.0, max(1, CELLS // max(1, change.shape[1]))
        for start in range(0, len(change), step):
            some = slice(start, start + step)
            before = torch.log_softmax(self.output[some], -1)
            after = torch.log_softmax(self.output[some] + change[some], -1)
            p, q = (after, before) if self.reverse else (before, after)
            total += float((p.exp() * (p - q)).sum(dtype=torch.float64))
        return max(0.0, total / len(change))

    def walk(self, errors: NDArray[np.float32], found: Cut, choices: Choices) -> Iterator[float]:
        """KL of each plan, from the one before by the blocks that differ. choices: (plans, blocks) of formats."""
        size = self.inputs.shape[1] // found.parts
        change, before = torch.zeros_like(self.output), np.full(found.parts, -1)
        for choice in choices:
            for block in np.flatnonzero(choice != before).tolist():
                some = slice(block * size, (block + 1) * size)
                error = errors[choice[block], :, some]
                if before[block] >= 0:
                    error = error - errors[before[block], :, some]
                change += self.inputs[:, some] @ here(error).T
            before = choice
            yield self.divergence(change)


def _inputs(task: ScoringTask, *, ranked: bool) -> Inputs:
    """A sample of every unit's inputs, and their moments if `ranked`. Raises InvalidCalibration, InvalidInput."""
    if task.data is None:
        raise InvalidCalibration("output-kl needs calibration data", hint="leave --calibration out for the bundled one")
    count, reverse = task.options.get("tokens", TOKENS), task.options.get("reverse", False)
    if not isinstance(count, int) or count < 1 or not isinstance(reverse, bool):
        raise InvalidInput("output-kl cannot work with these options", expected="tokens >= 1, reverse true or false")
    return Inputs(task, task.data, moments=ranked, rows=count)


def _layers(task: ScoringTask, inputs: Inputs, units: tuple[int, ...]) -> Iterator[tuple[int, _Layer, Any]]:
    """(unit number, its outputs, salience of its blocks if ranked) for each of these that some token reached."""
    reverse = bool(task.options.get("reverse", False))
    for group in inputs.groups(units):
        costs = {name: column_costs(hessian, inputs.data.tokens) for name, hessian in group.moments.items()}
        for number in group.units:
            unit = task.inventory.units[number]
            leader = group.leaders.get(unit.name)
            if leader not in group.rows:
                continue
            weight = unit_weight(task.source, unit)
            layer = _Layer(group.rows[leader], weight, group.bias(number), reverse)
            salience = None
            if inputs.moments:
                parts = cut(task.granularity, unit.shape, task.formats).parts
                salience = block_salience(weight, costs[leader], unit.shape[1] // parts)
            yield number, layer, salience
            task.progress("score", (number + 1) / len(task.inventory.units), unit.name)


def _nearest(task: ScoringTask) -> bool:
    """Whether plans are scored with rounding to nearest."""
    rounding = task.options.get("rounding", ROUNDINGS[0])
    if rounding not in ROUNDINGS:
        raise InvalidInput(
            "output-kl has no such rounding", expected=" or ".join(ROUNDINGS), got=repr(rounding)[:40]
        )  # fmt: skip
    return bool(rounding == ROUNDINGS[1])


class _Ladder:
    """The plans of every matrix at the target."""

    def __init__(self, task: ScoringTask) -> None:
        self.task = task
        target = task.options.get("bits", task.target)
        if not isinstance(target, int | float) or not 0 < target <= 64:
            raise InvalidInput(
                "output-kl by blocks looks for plans of one size, and none was named",
                expected="a budget, or the option bits", got=repr(target)[:40], hint="use `bitwright plan --budget`",
            )  # fmt: skip
        if not task.granularity.startswith("column:"):
            raise Unsupported(
                "output-kl plans blocks of columns", expected="granularity column:B", got=task.granularity
            )
        members = [member for member in task.formats if isinstance(member, IntFormat)]
        self.order = sorted(range(len(members)), key=lambda i: members[i].bits)
        widths = [int(members[i].width) for i in self.order]
        if len(members) != len(task.formats) or widths != list(range(widths[0], widths[0] + len(widths))):
            raise Unsupported(
                "output-kl moves blocks by one bit", expected="integer formats of consecutive widths",
                got=", ".join(member.name for member in task.formats)[:200],
            )  # fmt: skip
        self.cuts = [cut(task.granularity, unit.shape, task.formats) for unit in task.inventory.units]
        self.bits = float(target)

    def _centre(self, number: int) -> tuple[int, int]:
        unit = self.task.inventory.units[number]
        costs = part_bytes(self.task.granularity, unit.shape, self.task.formats)[:, self.order]
        room = int(self.bits * unit.elements / 8) - int(costs[0, 0] - costs[-1, 0])
        return centre(costs[-1], room, self.cuts[number].parts)

    def _plan(self, number: int, salience: Any, moved: int) -> NDArray[np.int64]:
        middle, surplus = self._centre(number)
        steps = dealt(salience, moved + max(0, -surplus), moved + max(0, surplus))
        return np.array(self.order, np.int64)[middle + steps]

    def rungs(self, number: int, salience: Any) -> Choices:
        """(plans, blocks) of format numbers, p = 0 first."""
        middle, surplus = self._centre(number)
        inner = 0 < middle < len(self.order) - 1
        last = (self.cuts[number].parts - abs(surplus)) // 2 if inner else 0
        moved = sorted(
            {round(i * last / max(1, RUNGS - 1)) for i in range(RUNGS)} if last >= RUNGS else range(last + 1)
        )
        return np.array([self._plan(number, salience, p) for p in moved])

    def uniform(self, number: int) -> Choices:
        """(1, blocks): the plan of a matrix of which nothing is known."""
        return self._plan(number, np.zeros(self.cuts[number].parts), 0)[None]

    def errors(self, number: int, choices: Choices) -> Iterator[torch.Tensor]:
        """What the quantizer does to the weights by each plan: float32 (out, in)."""
        unit = self.task.inventory.units[number]
        weight = unit_weight(self.task.source, unit)
        for choice in choices:
            format = mixed(self.task.granularity, self.task.formats, choice)
            yield here(quantized_weight(self.task.deltas.quantizer, weight, format, unit) - weight)

    def names(self, number: int, choices: Choices) -> list[str]:
        return [mixed(self.task.granularity, self.task.formats, choice).name for choice in choices]


def _scores(
    task: ScoringTask, inputs: Inputs, loss: NDArray[np.float64], stderr: NDArray[np.float64], missing: tuple[str, ...]
) -> Scores:
    assert task.data is not None
    return Scores(
        loss=loss, stderr=stderr, loss_unit=LOSS_UNIT, tokens=task.data.tokens, samples=task.data.items,
        unmeasured=missing, warnings=inputs.warnings,
        parameters={"compared_tokens": int(task.options.get("tokens", TOKENS)), "target": task.target},
    )  # fmt: skip
