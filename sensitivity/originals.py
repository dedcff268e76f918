"""What the original model put out while it was scored, kept for those who compare a changed model with it afterwards.

Only for items of one length, which are batched in their own order. A batch that is not kept, or that was scored
elsewhere (by another worker, in an earlier run), is run again, in the same way: who scored what changes no bit.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sensitivity.data import Data
from sensitivity.passes import Batch, Plan
from sensitivity.runner import Runner

#: Outputs that are kept: less than a third of what batches of BATCH_BYTES (passes.py) leave free after a pass.
KEPT_BYTES = 256 << 20


class Originals:
    """Outputs of the first `items` items of the data, as the passes of `plan` compute them. See evaluate.Original."""

    def __init__(self, runner: Runner, data: Data, plan: Plan, items: int) -> None:
        self._runner, self._data, self._plan, self._items = runner, data, plan, items
        self._kept: dict[int, torch.Tensor] = {}
        self._held = 0

    @property
    def batch_items(self) -> int:
        return self._plan.batch_items

    def keep(self, batch: Batch) -> None:
        """Keeps a batch's outputs, while there is room."""
        held = self._held + batch.output.numel() * batch.output.element_size()
        if batch.rows[0] < self._items and held <= KEPT_BYTES:
            self._kept[int(batch.rows[0]) // self.batch_items], self._held = batch.output, held

    def __call__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        number = int(rows[0]) // self.batch_items
        output = self._kept.get(number)
        if output is None:
            batch = np.arange(number * self.batch_items, min((number + 1) * self.batch_items, self._data.items))
            with torch.inference_mode(False), self._plan.listener.listen():
                output = self._runner.output(self._data.take(batch)).detach()
        return output[: len(rows)]


def originals(runner: Runner, data: Data, plan: Plan, items: int) -> Originals | None:
    """None where items are of several lengths."""
    alike = "input_ids" in data.inputs and "attention_mask" not in data.inputs
    return Originals(runner, data, plan, items) if alike else None
