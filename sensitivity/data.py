"""Calibration and evaluation data as plain arrays: what a model is run on, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Calibration blocks of 256 tokens: the length at which the default metric was compared (research/08).
SEQUENCE_TOKENS = 256


@dataclass(frozen=True, eq=False)
class Data:
    """Items that a model can be run on.

    kind: `tokens` (blocks of one length, no padding), `sentences` (padded, with attention_mask) or `images`.
    inputs: name -> array with items first; int64 `input_ids` (and `attention_mask`, `token_type_ids`), or float32
        `pixel_values` (items, channels, height, width).
    labels: int64 (items,), when the data came with them.
    """

    kind: str
    inputs: Mapping[str, Array]
    labels: NDArray[np.int64] | None = None

    @property
    def items(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def tokens(self) -> int:
        """Real tokens (padding left out); for images, their number."""
        if "attention_mask" in self.inputs:
            return int(self.inputs["attention_mask"].sum())
        return int(self.inputs["input_ids"].size) if "input_ids" in self.inputs else self.items

    def take(self, rows: NDArray[np.int64]) -> Data:
        """The items at these positions, in this order."""
        labels = None if self.labels is None else self.labels[rows]
        return Data(self.kind, {name: array[rows] for name, array in self.inputs.items()}, labels)

    def trimmed(self) -> Data:
        """Without the columns that are padding for every item."""
        mask = self.inputs.get("attention_mask")
        if mask is None:
            return self
        width = max(1, int(mask.sum(axis=1).max()))
        return Data(self.kind, {name: array[:, :width] for name, array in self.inputs.items()}, self.labels)

    def item_digests(self) -> list[bytes]:
        """One digest an item, of everything it holds: equal items have equal digests."""
        names = sorted(self.inputs)
        arrays = [np.ascontiguousarray(self.inputs[name]) for name in names]
        return [hashlib.sha256(b"".join(a[i].tobytes() for a in arrays)).digest() for i in range(self.items)]

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.kind.encode() + b"".join(self.item_digests())).hexdigest()


@dataclass(frozen=True, eq=False)
class Calibration:
    """Two disjoint parts of one source. `scoring` makes the table, `confirming` measures the plan.

    digest: of both parts' contents; tables and plans name it. description: where it came from, for people.
    """

    kind: str
    scoring: Data
    confirming: Data
    digest: str
    description: str


def split(data: Data, *, scoring: int, confirming: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the scoring and the confirming part: `scoring` and `confirming` items, or as near as the data allows.

    Items are ordered by sha256(seed, content) and equal items count once, so no item is ever in both parts, the parts
    do not depend on the order of the source, and each is a uniform sample of it. Too little data is shared out in
    proportion, at least one item each (with one item the confirming part is empty).
    """
    prefix = f"bitwright-split-{seed}".encode()
    first: dict[bytes, int] = {}
    for row, digest in enumerate(data.item_digests()):
        first.setdefault(hashlib.sha256(prefix + digest).digest(), row)
    order = np.array([first[key] for key in sorted(first)], np.int64)
    if len(order) < scoring + confirming:
        scoring = min(max(1, round(len(order) * scoring / max(1, scoring + confirming))), max(1, len(order) - 1))
    return order[:scoring], order[scoring : scoring + confirming]
