"""Through a model that is read block by block, with every planned layer of every block shown to a visitor.

    forward only      for each block: read it, run every batch through it, show its layers, hand on what comes out; the
                      head last
    with gradients    forward, keeping what goes into each block; head; then for each block from the last: read it, run
                      every batch again from the kept input, differentiate along the K gradients that arrive, show the
                      layers with their output gradients, hand the K gradients on

What is held is one block, a batch's activations inside it, and what waits on the stream's shelf.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from sensitivity.base import ScoringTask
from sensitivity.blocks import OUTSIDE, BlockModel
from sensitivity.capture import Call, per_item
from sensitivity.data import Data
from sensitivity.heads import Direction
from sensitivity.on_device import computing
from sensitivity.shelf import Shelf
from sensitivity.stream import Stream, cut
from sensitivity.units_map import Slice

#: How far a captured gradient may lie from autograd's, relative (bfloat16 keeps 8 bits).
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


@dataclass(frozen=True, eq=False)
class Use:
    """One planned unit in one use of its layer: inputs (items, positions, in), output (items, positions, out) detached,
    gradients: one (items, positions, out) a direction, none on a forward pass alone. call: that use of the layer."""

    unit: int
    inputs: torch.Tensor
    output: torch.Tensor
    gradients: tuple[torch.Tensor, ...]
    call: Call


class Visitor(Protocol):
    """Who looks at the layers. A block's weights are in memory from `begin` to `end`."""

    def begin(self, block: int) -> None: ...

    def see(self, number: int, uses: Sequence[Use], batch: Data) -> None:
        """Batch `number` in the block: every use of a planned layer, in order."""
        ...

    def end(self, block: int) -> None: ...


#: (output of a batch, its items' numbers, the batch) -> directions that gradients are taken along.
Choose = Callable[[torch.Tensor, NDArray[np.int64], Data], list[Direction]]


@dataclass(eq=False)
class Walk:
    """cuts: rows of each batch. choose: None for a forward pass alone.

    norms: what an item's loss is divided by, a batch; weights: float64 (directions, items), a batch. Both are known
    once the head was seen. tell: share of the work that is done while nothing is seen yet, and words.
    """

    stream: Stream
    cuts: Sequence[NDArray[np.int64]]
    choose: Choose | None
    tell: Callable[[float, str], None] = lambda share, words: None
    norms: dict[int, int] = field(default_factory=dict)
    weights: dict[int, torch.Tensor] = field(default_factory=dict)

    def run(self, visitor: Visitor) -> Iterator[tuple[int, float, str]]:
        """Shows everything; after each block (its number, share of the work that is done, words), its weights loaded.

        Raises Unsupported, NotFinite.
        """
        stream, blocks = self.stream, len(self.stream.model.blocks)
        forward = 1.0 if self.choose is None else 1 / 3
        stream.begin("x")
        for block in range(blocks):
            with stream.model.loaded(block):
                if self.choose is None:
                    self._visit(block, visitor)
                    yield block, (block + 1) / (blocks + 1), f"block {block} seen"
                else:
                    stream.advance("x", block, keep=True)
                    self.tell(forward * (block + 1) / blocks, f"block {block} run")
        with stream.model.loaded(OUTSIDE):
            self._visit(OUTSIDE, visitor)
            yield OUTSIDE, forward, "head seen"
        for done, block in enumerate(reversed(range(blocks if self.choose is not None else 0))):
            with stream.model.loaded(block):
                self._visit(block, visitor)
                yield block, forward + (1 - forward) * (done + 1) / blocks, f"block {block} scored"

    def _visit(self, block: int, visitor: Visitor) -> None:
        """Every batch through a block that is loaded, and back."""
        stream, units = self.stream, self.stream.model.units_of(block)
        self._check(block)
        visitor.begin(block)
        at = stream.last + 1 if block == OUTSIDE else block
        for number, rows in enumerate(self.cuts):
            inputs = stream.shelf.get(("x", at, number)).detach().requires_grad_(self.choose is not None)
            with stream.listener(units).listen() as calls:
                output = stream.finish(number, inputs) if block == OUTSIDE else stream.run(block, number, inputs)
            gradients = self._gradients(block, number, calls, inputs, output)
            visitor.see(number, _uses(calls, gradients, len(rows)), stream.batches[number])
            stream.shelf.drop(("x", at, number))
            if self.choose is None and block != OUTSIDE:
                stream.shelf.put(("x", block + 1, number), output.detach())
        visitor.end(block)

    def _gradients(
        self, block: int, number: int, calls: list[Call], inputs: torch.Tensor, output: torch.Tensor
    ) -> list[list[torch.Tensor | None]]:
        """Along each direction those of every call's output; those of the inputs go on the shelf."""
        arriving: Sequence[torch.Tensor] = ()
        if block == OUTSIDE:
            self.norms[number] = self.stream.model.head.norm(output)
            chosen = [] if self.choose is None else self.choose(output, self.cuts[number], self.stream.batches[number])
            items = len(self.cuts[number])
            self.weights[number] = torch.zeros(0, items, dtype=torch.float64)
            if chosen:
                self.weights[number] = torch.stack([one.weight for one in chosen])
            arriving = [one.gradient for one in chosen]
        elif self.choose is not None:
            arriving = list(self.stream.shelf.get(("g", number)))
        if not arriving:
            return []
        gradients, passed = _differentiate(calls, inputs, output, arriving)
        self.stream.shelf.put(("g", number), torch.stack(passed))
        return gradients

    def _check(self, block: int) -> None:
        """The first time a block is seen: see `check_captured`."""
        stream, units = self.stream, self.stream.model.units_of(block)
        if block in stream.model.checked or not units:
            return
        at = stream.last + 1 if block == OUTSIDE else block

        def run() -> tuple[torch.Tensor, torch.Tensor]:
            inputs = stream.shelf.get(("x", at, 0)).detach().requires_grad_()
            output = stream.finish(0, inputs) if block == OUTSIDE else stream.run(block, 0, inputs)
            if self.choose is None:
                noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
                return output, noise.to(output)
            if block == OUTSIDE:
                return output, self.choose(output, self.cuts[0], stream.batches[0])[0].gradient
            return output, stream.shelf.get(("g", 0))[0]

        check_captured(stream, units, run)
        stream.model.checked.add(block)


@contextmanager
def opened_walk(
    model: BlockModel, data: Data, rows: NDArray[np.int64], choose: Choose | None, activation_bytes: int
) -> Iterator[Walk]:
    """A walk of these items; what waits between blocks is on disk beyond half of `activation_bytes`."""
    cuts = cut(model, data, rows, activation_bytes)
    batches = [data.take(some).trimmed() for some in cuts]
    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder, torch.inference_mode(False):
        yield Walk(Stream(model, batches, Shelf(activation_bytes // 2, Path(folder))), cuts, choose)


def walk_rows(
    task: ScoringTask, model: BlockModel, rows: NDArray[np.int64], choose: Choose | None,
    visit: Callable[[Walk], Visitor], told: tuple[float, float], activation_bytes: int,
) -> Walk:  # fmt: skip
    """These items of the task through the whole model. told: share of the work before and after, for the progress."""
    assert task.data is not None

    def tell(share: float, words: str) -> None:
        task.progress("score", told[0] + (told[1] - told[0]) * share, words)

    with opened_walk(model, task.data, rows, choose, activation_bytes) as walk:
        walk.tell = tell
        for _, share, words in walk.run(visit(walk)):
            tell(share, words)
    return walk


def _uses(calls: list[Call], gradients: list[list[torch.Tensor | None]], items: int) -> list[Use]:
    found = []
    for at, call in enumerate(calls):
        shaped = per_item(call, items)
        if shaped is None:
            raise Unsupported("a layer mixes the items of a batch", hint="score it in memory")
        inputs, shape = shaped
        output = call.output.detach().reshape(shape)
        known = [output.new_zeros(shape) if g[at] is None else g[at].reshape(shape) for g in gradients]  # type: ignore[union-attr]
        for part in call.parts:
            some = slice(part.start, part.stop)
            found.append(Use(part.unit, inputs, output[..., some], tuple(g[..., some] for g in known), call))
    return found


def _differentiate(
    calls: list[Call], inputs: torch.Tensor, output: torch.Tensor, arriving: Sequence[torch.Tensor]
) -> tuple[list[list[torch.Tensor | None]], list[torch.Tensor]]:
    """Along each direction: gradients of every call's output, and of the inputs."""
    found: list[list[torch.Tensor | None]] = []
    passed = []
    wanted = [call.output for call in calls] + [inputs]
    for number, gradient in enumerate(arriving):
        keep = number < len(arriving) - 1
        grads = torch.autograd.grad(output, wanted, gradient, retain_graph=keep, allow_unused=True)
        found.append(list(grads[:-1]))
        passed.append(torch.zeros_like(inputs) if grads[-1] is None else grads[-1])
    return found, passed


def check_captured(
    stream: Stream, units: tuple[int, ...], run: Callable[[], tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Whether linear layers alone make the units' gradients: compared with autograd's own, on the first batch.

    A parameter's gradient is compared as soon as it is there, and dropped: all of a block's would be as large as the
    block. run: output of the loaded block, and a gradient of it. Raises Unsupported.
    """
    model = stream.model
    of_parameter: dict[str, list[int]] = {}
    for unit in units:
        of_parameter.setdefault(model.places[unit].parameter, []).append(unit)
    parameters = {name: model.parameter(name) for name in of_parameter}
    arrived: dict[int, torch.Tensor] = {}
    wrong: list[int] = []
    left = set(parameters)
    calls: list[Call] = []

    def compare(name: str, whole: torch.Tensor | None) -> None:
        left.discard(name)
        for unit in of_parameter[name]:
            truth, mine = _truth(model.places[unit], whole), _captured(unit, calls, arrived)
            if float((truth - mine).norm()) > TOLERANCE[model.reader.dtype] * float(truth.norm()):
                wrong.append(unit)

    def hook(name: str, parameter: torch.Tensor) -> None:
        compare(name, parameter.grad)
        parameter.grad = None

    for one in parameters.values():
        one.requires_grad_(True)
    handles = [
        one.register_post_accumulate_grad_hook(partial(hook, name))  # type: ignore[no-untyped-call]
        for name, one in parameters.items()
    ]
    try:
        with stream.listener(units).listen() as calls:
            output, gradient = run()
        for at, call in enumerate(calls):
            call.output.register_hook(partial(arrived.__setitem__, at))  # type: ignore[no-untyped-call]
        torch.autograd.backward(output, gradient, inputs=list(parameters.values()))
        for name in sorted(left):
            compare(name, None)
    finally:
        for handle, one in zip(handles, parameters.values(), strict=True):
            handle.remove()
            one.requires_grad_(False)
    if wrong:
        raise Unsupported(
            "streaming looks at linear layers, and this model uses planned weights in other ways",
            expected="weights used through torch's linear", got=model.inventory.units[min(wrong)].name,
            hint="score it in memory",
        )  # fmt: skip


def _truth(place: Slice, whole: torch.Tensor | None) -> torch.Tensor:
    """A unit's part of its parameter's gradient in float32; one zero where the parameter is not used."""
    if whole is None:
        return torch.zeros((), device=computing())
    return place.view({place.parameter: torch.nn.Parameter(whole, False)}).float()


def _captured(unit: int, calls: Sequence[Call], arrived: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """The unit's gradient as its layers tell it: output gradients times inputs, over all uses."""
    mine = torch.zeros((), device=computing())
    for at, call in enumerate(calls):
        part = next((part for part in call.parts if part.unit == unit), None)
        if part is not None and at in arrived:
            piece = arrived[at].flatten(0, -2)[:, part.start : part.stop].float()
            mine = mine + piece.T @ call.inputs.flatten(0, -2).float()
    return mine
