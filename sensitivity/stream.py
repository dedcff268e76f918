"""Running a model block by block over batches of data: what goes into the blocks, through them, and out of the head.

Only one block's weights are in memory (blocks.py); what a batch hands from block to block waits on a shelf. The
arguments that blocks get beside their input (positions, masks) depend on the data alone and are kept from a first run
that skips every block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from sensitivity.blocks import OUTSIDE, BlockModel
from sensitivity.capture import Listener, listener_for
from sensitivity.data import Data
from sensitivity.runner import check_output, running
from sensitivity.shelf import Shelf

#: Block inputs and gradients that wait, and a batch's activations: half of it each; more inputs wait on disk.
ACTIVATION_BYTES = 1 << 30
#: Tokens of a batch, or items of image models, at most.
BATCH_TOKENS, BATCH_ITEMS = 2048, 8
#: Numbers a token and hidden channel that a block's forward and backward keep; copies of logits that scoring makes.
_IN_BLOCK, _LOGITS = 64, 8


class _Reached(Exception):
    """The last block was reached."""


Forward = Callable[[int, torch.Tensor, Any, Any], Any]


@dataclass(eq=False)
class Stream:
    """batches: items that run together. Between blocks, (stream, block, batch) keys tell what waits on the shelf."""

    model: BlockModel
    batches: Sequence[Data]
    shelf: Shelf
    tupled: bool = False
    arguments: dict[tuple[int, int], tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return len(self.model.blocks) - 1

    def begin(self, stream: str) -> None:
        """Puts what goes into the first block on the shelf. Raises Unsupported, NotFinite."""
        self.tupled = self._gives_tuples()
        with torch.no_grad(), self.model.loaded(OUTSIDE):
            for number in range(len(self.batches)):
                self._enter(stream, number)

    def _enter(self, stream: str, number: int) -> None:
        def forward(block: int, hidden: torch.Tensor, args: Any, kwargs: Any) -> Any:
            if (block, number) in self.arguments:
                raise Unsupported("the model runs a block more than once", hint="score it in memory")
            self.arguments[block, number] = (args, kwargs)
            if block == 0:
                self.shelf.put((stream, 0, number), hidden.detach().clone())
            if block == self.last:
                raise _Reached
            return (hidden,) if self.tupled else hidden

        units = self.model.units_of(OUTSIDE)
        with running(), self._instead(forward), self.listener(units).listen() as calls:
            try:
                self.model.head.output(self.model.model, self.batches[number])
            except _Reached:
                if calls:
                    name = self.model.inventory.units[calls[0].parts[0].unit].name
                    raise Unsupported(
                        f"{name} is used before the first block", expected="planned weights in or after the blocks",
                        got=name, hint="score it in memory",
                    ) from None  # fmt: skip
                return
        raise Unsupported("the model does not run its blocks one after another", hint="score it in memory")

    def _gives_tuples(self) -> bool:
        """Whether blocks give tuples, from one real block on the first batch."""
        seen: list[Any] = []

        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            seen.append(output)
            raise _Reached

        handle = self.model.blocks[0].register_forward_hook(hook)
        try:
            with running(), torch.no_grad(), self.model.loaded(OUTSIDE), self.model.loaded(0):
                self.model.head.output(self.model.model, self.batches[0].take(np.zeros(1, np.int64)).trimmed())
        except _Reached:
            return isinstance(seen[0], tuple)
        finally:
            handle.remove()
        raise Unsupported("the model does not run its blocks one after another", hint="score it in memory")

    def run(self, block: int, number: int, inputs: torch.Tensor) -> torch.Tensor:
        """A block (loaded) on what waits for it."""
        args, kwargs = self.arguments[block, number]
        with running():
            output = self.model.blocks[block](inputs, *args, **kwargs)
        first: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return first

    def advance(self, stream: str, block: int, *, keep: bool) -> None:
        """Every batch through a block that is loaded."""
        with torch.no_grad():
            for number in range(len(self.batches)):
                output = self.run(block, number, self.shelf.get((stream, block, number)))
                self.shelf.put((stream, block + 1, number), output)
                if not keep:
                    self.shelf.drop((stream, block, number))

    def finish(self, number: int, end: torch.Tensor) -> torch.Tensor:
        """The head's output of a batch (OUTSIDE is loaded) when `end` comes out of the last block. Raises NotFinite."""

        def forward(block: int, hidden: torch.Tensor, args: Any, kwargs: Any) -> Any:
            result = end if block == self.last else hidden.detach()
            return (result,) if self.tupled else result

        with running(), self._instead(forward):
            output = self.model.head.output(self.model.model, self.batches[number])
        check_output(output)
        return output

    def listener(self, units: tuple[int, ...]) -> Listener:
        """For units whose block is loaded. Raises Unsupported."""
        places = {unit: self.model.places[unit] for unit in units}
        turned = [unit for unit, place in places.items() if place.transposed]
        if turned:
            raise Unsupported(
                "streaming looks at linear layers, and this model uses planned weights in other ways",
                expected="weights used through torch's linear", got=self.model.inventory.units[turned[0]].name,
                hint="score it in memory",
            )  # fmt: skip
        known = {place.parameter: self.model.parameter(place.parameter) for place in places.values()}
        return listener_for(known, places)

    @contextmanager
    def _instead(self, forward: Forward) -> Iterator[None]:
        """Every block's forward replaced by forward(block number, hidden, args, kwargs)."""
        try:
            for number, block in enumerate(self.model.blocks):
                block.forward = lambda hidden, *a, _n=number, **k: forward(_n, hidden, a, k)
            yield
        finally:
            for block in self.model.blocks:
                del block.forward


def _image_positions(config: Any) -> int:
    """Positions of an image inside the blocks: its patches and a class token, or those of 224 x 224 by 14 x 14."""
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if not isinstance(size, int) or not isinstance(patch, int) or patch < 1:
        return 257
    return 1 + (size // patch) ** 2


def cut(model: BlockModel, data: Data, rows: NDArray[np.int64], activation_bytes: int) -> list[NDArray[np.int64]]:
    """Rows of the batches: as many items together as half of `activation_bytes` allows; experts take one at a time.

    The inputs of experts do not say which item they came from.
    """
    if model.experts:
        return [rows[i : i + 1] for i in range(len(rows))]
    config: Any = model.model.config
    width = data.inputs["input_ids"].shape[1] if "input_ids" in data.inputs else 0
    positions = width or _image_positions(config)
    hidden = int(getattr(config, "hidden_size", 0) or 1024)
    logits = int(getattr(config, "vocab_size", 0) or 0) if model.inventory.task == "causal-lm" else 0
    size = BATCH_ITEMS if not width else max(1, BATCH_TOKENS // width)
    a_token = 4 * max(_IN_BLOCK * hidden, _LOGITS * logits)
    size = max(1, min(size, activation_bytes // 2 // (a_token * positions)))
    return [rows[start : start + size] for start in range(0, len(rows), size)]
