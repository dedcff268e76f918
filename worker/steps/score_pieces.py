"""Scoring by several workers: the pieces of a pass (batches of data, layers of the model) in runs, one part each.

A part runs the metric as everybody does, up to the pass that it is part of, computes its pieces of that pass, writes
them down and stops. Passes before that one are read from their own parts, which had to be there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sensitivity.partial import State
from sensitivity.share import Compute
from worker.fanout import cut, once, other_version, spread
from worker.steps.context import Context

FUNCTION = "worker.steps.score_parts:run_pieces"


class Written(Exception):
    """Raised through a metric: the part that this process was to make is there."""


@dataclass
class PieceShare:
    """A `sensitivity.share.Share`. question: plain JSON, everything that can change what a piece gives."""

    question: Mapping[str, Any]
    context: Context
    passes: int = field(default=0, init=False)

    def decide(self, name: str, make: Callable[[], Any]) -> Any:
        return once(self.context, {"question": self.question, "decision": name}, make)

    def gather(self, pieces: range, compute: Compute) -> Iterator[State]:
        """Raises FanOut while parts are missing."""
        number, self.passes = self.passes, self.passes + 1
        runs = cut(len(pieces), int(self.question["shards"]))
        items = [{**self.question, "pass": number, "of": len(pieces), "pieces": [run.start, run.stop]} for run in runs]
        for path in spread(self.context, "score", FUNCTION, items):
            yield from read(path)


class OnePart(PieceShare):
    """The share of a process that makes the part `item`."""

    def __init__(self, item: Mapping[str, Any], context: Context, path: Path) -> None:
        question = {name: value for name, value in item.items() if name not in ("pass", "of", "pieces")}
        # A part of an earlier pass that was swept away is made again here.
        super().__init__(question, replace(context, settings=context.settings.model_copy(update={"shards": 1})))
        self.item, self.path = item, path

    def gather(self, pieces: range, compute: Compute) -> Iterator[State]:
        """Raises Written at the part's own pass."""
        if self.passes < self.item["pass"]:
            return super().gather(pieces, compute)
        if len(pieces) != self.item["of"]:
            raise other_version(f"{self.item['of']} pieces", f"{len(pieces)} pieces")
        write(self.path, compute(range(*self.item["pieces"])))
        raise Written


def write(path: Path, pieces: Iterator[State]) -> None:
    """A folder with a file a piece: as much in memory as one piece gives."""
    path.mkdir()
    for number, arrays in enumerate(pieces):
        with (path / f"{number:06d}.npz").open("wb") as file:
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]


def read(path: Path) -> Iterator[State]:
    """What `write` wrote, to the bit."""
    for file in sorted(path.iterdir()):
        with np.load(file, allow_pickle=False) as kept:
            yield {name: kept[name] for name in kept.files}
