"""`fisher` scores of a model that does not fit in memory: one block at a time, forward and backward, with
recomputation.

    forward    for each block: read it, run every batch through it, keep what comes out, drop it
    head       final norm and head of every batch; the directions of the output, K gradients of the last block's output
    backward   for each block from the last: read it, quantize its units, and for every batch run it again from the kept
               input, differentiate along the K gradients, score its units, hand the K gradients on

What is held is one block, the codes of its units in every format (a byte a weight and format, up to twice the block in
float32; beyond, units are quantized again for every batch), the error of one unit in one format, a batch's activations
inside the block, and block inputs up to a limit (more go to disk). GROUP_TOKENS are taken through the whole model at a
time: what is done of them outlives a kill. The numbers are those of sensitivity/fisher.py up to float32 rounding: draws
depend on (seed, item) alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import NotFinite, Unsupported
from sensitivity.base import ScoringTask
from sensitivity.blocks import OUTSIDE, BlockModel
from sensitivity.capture import Call, per_item
from sensitivity.codes import Codes
from sensitivity.data import Data
from sensitivity.share import Values
from sensitivity.shelf import Shelf
from sensitivity.stream import ACTIVATION_BYTES, Stream, cut

#: Tokens (items of image models) that go through the whole model at a time.
GROUP_TOKENS = 4096
#: Numbers of the gradients of a unit that are held at once.
GRADIENT_CELLS = 1 << 24
#: How far a captured gradient may lie from autograd's, relative (bfloat16 keeps 8 bits).
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


def group_items(data: Data) -> int:
    """Items of a group: about GROUP_TOKENS."""
    return max(1, round(GROUP_TOKENS * data.items / max(1, data.tokens)))


def group_values(
    task: ScoringTask,
    model: BlockModel,
    rows: NDArray[np.int64],
    samples: int,
    told: tuple[float, float],
    keeping: bool = False,
    activation_bytes: int = ACTIVATION_BYTES,
) -> Values:
    """Losses of the items of a group.

    keeping: signed scores too. told: share of the work before and after, for the progress.
    Raises Unsupported, NotFinite.
    """
    assert task.data is not None
    cuts = cut(model, task.data, rows, activation_bytes)
    batches = [task.data.take(some).trimmed() for some in cuts]
    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder, torch.inference_mode(False):
        stream = Stream(model, batches, Shelf(activation_bytes // 2, Path(folder)))
        work = _Work(task, stream, cuts, samples, keeping)
        blocks, steps = len(model.blocks), 3 * len(model.blocks)

        def tell(step: int, words: str) -> None:
            task.progress("score", told[0] + (told[1] - told[0]) * step / steps, words)

        stream.begin("x")
        for block in range(blocks):
            with model.loaded(block):
                stream.advance("x", block, keep=True)
            tell(block + 1, f"block {block} run")
        work.head()
        for done, block in enumerate(reversed(range(blocks))):
            work.backward(block)
            tell(blocks + 2 * (done + 1), f"block {block} scored")
    signed = torch.cat(work.signed).numpy() if keeping else None
    return Values(work.values.numpy(), work.reached, rows, len(work.weights[0]), signed)


class _Work:
    """Scores of one group, filled block by block."""

    def __init__(
        self, task: ScoringTask, stream: Stream, cuts: list[NDArray[np.int64]], samples: int, keeping: bool
    ) -> None:
        self.task, self.stream, self.cuts, self.samples, self.keeping = task, stream, cuts, samples, keeping
        self.signed: list[torch.Tensor] = []
        self.values = torch.zeros(sum(map(len, cuts)), *task.shape, dtype=torch.float64)
        self.reached = np.zeros(task.shape[0], np.bool_)
        self.norms: list[int] = []
        self.weights: list[torch.Tensor] = []
        self.starts = np.cumsum([0, *map(len, cuts)])

    def head(self) -> None:
        """Scores the units outside the blocks; puts the gradients of the last block's output on the shelf."""
        stream, head = self.stream, self.stream.model.head
        end = stream.last + 1
        with stream.model.loaded(OUTSIDE):
            self._check(OUTSIDE)
            codes = Codes(self.task, stream.model, OUTSIDE)
            for number, rows in enumerate(self.cuts):
                inputs = stream.shelf.get(("x", end, number)).detach().requires_grad_()
                with stream.listener(codes.units).listen() as calls:
                    output = stream.finish(number, inputs)
                self.norms.append(head.norm(output))
                directions = list(head.directions(output, rows, self.samples, self.task.seed))
                self.weights.append(torch.stack([direction.weight for direction in directions]))
                if self.keeping:
                    self.signed.append(torch.zeros(len(rows), len(directions), *self.task.shape))
                self._score(codes, number, calls, inputs, [(output, one.gradient) for one in directions])
                stream.shelf.drop(("x", end, number))

    def backward(self, block: int) -> None:
        """Scores a block's units, hands the gradients on to the one before."""
        stream = self.stream
        with stream.model.loaded(block):
            self._check(block)
            codes = Codes(self.task, stream.model, block)
            for number in range(len(self.cuts)):
                inputs = stream.shelf.get(("x", block, number)).detach().requires_grad_()
                with stream.listener(codes.units).listen() as calls:
                    output = stream.run(block, number, inputs)
                arriving = stream.shelf.get(("g", number))
                self._score(codes, number, calls, inputs, [(output, gradient) for gradient in arriving])
                stream.shelf.drop(("x", block, number))

    def _check(self, block: int) -> None:
        """The first time a block is scored: see `check_captured`."""
        stream, units = self.stream, self.stream.model.units_of(block)
        if block in stream.model.checked or not units:
            return
        where = stream.last + 1 if block == OUTSIDE else block

        def run() -> tuple[torch.Tensor, torch.Tensor]:
            inputs = stream.shelf.get(("x", where, 0)).detach().requires_grad_()
            if block != OUTSIDE:
                return stream.run(block, 0, inputs), stream.shelf.get(("g", 0))[0]
            output = stream.finish(0, inputs)
            return output, next(stream.model.head.directions(output, self.cuts[0], 1, self.task.seed)).gradient

        check_captured(stream, units, run)
        stream.model.checked.add(block)

    def _score(
        self, codes: Codes, number: int, calls: list[Call], inputs: torch.Tensor,
        outputs: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> None:  # fmt: skip
        """Adds a batch's losses in the block's units; puts d(direction)/d(inputs) on the shelf."""
        items = len(self.cuts[number])
        gradients, passed = _differentiate(calls, inputs, outputs)
        self.stream.shelf.put(("g", number), torch.stack(passed))
        uses: dict[int, list[tuple[torch.Tensor, list[torch.Tensor]]]] = {}
        for at, call in enumerate(calls):
            shaped = per_item(call, items)
            if shaped is None:
                raise Unsupported("a layer mixes the items of a batch", hint="score it in memory")
            known = [g[at] if g[at] is not None else torch.zeros_like(call.output) for g in gradients]
            grads = [g.reshape(shaped[1]) for g in known if g is not None]
            for part in call.parts:
                pieces = [g[..., part.start : part.stop] for g in grads]
                uses.setdefault(part.unit, []).append((shaped[0], pieces))
        some = slice(int(self.starts[number]), int(self.starts[number + 1]))
        for unit, found in uses.items():
            scores, reached = _unit_scores(codes, unit, found, items)
            if not bool(torch.isfinite(scores).all()):
                raise NotFinite(
                    "the backward pass gave NaN or infinity", hint="the model overflows on this calibration data"
                )
            weight = self.weights[number][:, :, None]
            if self.keeping:
                scale = (weight * len(weight) / self.norms[number]).sqrt()
                self.signed[number][:, :, unit] = (scores * scale).transpose(0, 1).float()
            self.values[some, unit] = (weight * scores.square()).sum(0) / (2 * self.norms[number])
            self.reached[unit] |= reached


def _differentiate(
    calls: list[Call], inputs: torch.Tensor, outputs: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[list[list[torch.Tensor | None]], list[torch.Tensor]]:
    """Along each direction: gradients of every call's output, and of the inputs."""
    found: list[list[torch.Tensor | None]] = []
    passed = []
    for number, (output, gradient) in enumerate(outputs):
        wanted = [call.output for call in calls] + [inputs]
        keep = number < len(outputs) - 1
        grads = torch.autograd.grad(output, wanted, gradient, retain_graph=keep, allow_unused=True)
        found.append(list(grads[:-1]))
        passed.append(torch.zeros_like(inputs) if grads[-1] is None else grads[-1])
    return found, passed


def _unit_scores(
    codes: Codes, unit: int, uses: list[tuple[torch.Tensor, list[torch.Tensor]]], items: int
) -> tuple[torch.Tensor, bool]:
    """float64 (directions, items, formats): <G_s, dW> through G, some items and directions at a time.

    And whether any G is not zero.
    """
    directions = len(uses[0][1])
    flat = [(inputs, torch.stack(grads).flatten(0, 1)) for inputs, grads in uses]
    jobs = torch.arange(directions * items)
    scores, reached = torch.zeros(len(jobs), len(codes.formats), dtype=torch.float64), False
    for some in torch.split(jobs, max(1, GRADIENT_CELLS // codes.cells(unit))):
        products = [torch.bmm(d[some].float().transpose(1, 2), x[some % items].float()) for x, d in flat]
        gradient = torch.stack(products).sum(0).flatten(1) if len(products) > 1 else products[0].flatten(1)
        reached = reached or bool(gradient.any())
        for column, error in enumerate(codes.errors(unit)):
            scores[some, column] = (gradient @ error.flatten()).double()
    return scores.reshape(directions, items, -1), reached


def check_captured(
    stream: Stream, units: tuple[int, ...], run: Callable[[], tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Whether linear layers alone make the units' gradients: compared with autograd's own, on the first batch.

    run: output of the loaded block, and a gradient of it. Raises Unsupported.
    """
    model = stream.model
    names = {model.places[unit].parameter for unit in units}
    parameters = {name: one for name, one in model.model.named_parameters() if name in names}
    for one in parameters.values():
        one.requires_grad_(True)
    try:
        with stream.listener(units).listen() as calls:
            output, gradient = run()
        wanted = [*(call.output for call in calls), *parameters.values()]
        found = torch.autograd.grad(output, wanted, gradient, allow_unused=True)
    finally:
        for one in parameters.values():
            one.requires_grad_(False)
    exact = dict(zip(parameters, found[len(calls) :], strict=True))
    for unit in units:
        place = model.places[unit]
        whole = exact[place.parameter]
        truth = torch.zeros(()) if whole is None else place.view({place.parameter: torch.nn.Parameter(whole, False)})
        mine = torch.zeros(())
        for call, grad in zip(calls, found, strict=False):
            part = next((part for part in call.parts if part.unit == unit), None)
            if part is not None and grad is not None:
                piece = grad.flatten(0, -2)[:, part.start : part.stop].float()
                mine = mine + piece.T @ call.inputs.flatten(0, -2).float()
        if float((truth.float() - mine).norm()) > TOLERANCE[model.reader.dtype] * float(truth.float().norm()):
            raise Unsupported(
                "streaming looks at linear layers, and this model uses planned weights in other ways",
                expected="weights used through torch's linear", got=model.inventory.units[unit].name,
                hint="score it in memory",
            )  # fmt: skip
