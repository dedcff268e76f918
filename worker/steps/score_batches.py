"""Scoring by several workers: batches in runs, one part each, for metrics that add up what batches of data give.

A part runs the metric as everybody does, up to the pass that it is part of, computes its batches of that pass, writes
them down and stops. Passes before that one are read from their own parts, which had to be there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.errors import Unsupported
from sensitivity.share import Compute, Values
from worker.fanout import cut, once, spread
from worker.steps.context import Context

FUNCTION = "worker.steps.score_parts:run_batches"


class Written(Exception):
    """Raised through a metric: the part that this process was to make is there."""


@dataclass
class BatchShare:
    """A `sensitivity.share.Share`. question: plain JSON, everything that can change what a batch gives."""

    question: Mapping[str, Any]
    context: Context
    passes: int = field(default=0, init=False)

    def decide(self, name: str, make: Callable[[], Any]) -> Any:
        return once(self.context, {"question": self.question, "decision": name}, make)

    def gather(self, batches: range, compute: Compute) -> Iterator[Values]:
        """Raises FanOut while parts are missing."""
        number, self.passes = self.passes, self.passes + 1
        runs = cut(len(batches), int(self.question["shards"]))
        items = [
            {**self.question, "pass": number, "of": len(batches), "batches": [run.start, run.stop]} for run in runs
        ]
        for path in spread(self.context, "score", FUNCTION, items):
            yield from read(path)


class OnePart(BatchShare):
    """The share of a process that makes the part `item`."""

    def __init__(self, item: Mapping[str, Any], context: Context, path: Path) -> None:
        question = {name: value for name, value in item.items() if name not in ("pass", "of", "batches")}
        # A part of an earlier pass that was swept away is made again here.
        super().__init__(question, replace(context, settings=context.settings.model_copy(update={"shards": 1})))
        self.item, self.path = item, path

    def gather(self, batches: range, compute: Compute) -> Iterator[Values]:
        """Raises Written at the part's own pass."""
        if self.passes < self.item["pass"]:
            return super().gather(batches, compute)
        if len(batches) != self.item["of"]:
            raise Unsupported(
                "the workers of one job cut the calibration data differently",
                expected=f"{self.item['of']} batches", got=f"{len(batches)} batches",
                hint="run the same version on every worker, or set BITWRIGHT_SHARDS=1",
            )  # fmt: skip
        write(self.path, compute(range(*self.item["batches"])))
        raise Written


def write(path: Path, batches: Iterator[Values]) -> None:
    """A folder with a file a batch: as much in memory as one batch gives."""
    path.mkdir()
    for number, values in enumerate(batches):
        with (path / f"{number:06d}.npz").open("wb") as file:
            kept: dict[str, Any] = {} if values.signed is None else {"signed": values.signed}
            np.savez(
                file, cells=values.cells, reached=values.reached, rows=values.rows, directions=values.directions, **kept
            )


def read(path: Path) -> Iterator[Values]:
    """What `write` wrote, to the bit."""
    for file in sorted(path.iterdir()):
        with np.load(file, allow_pickle=False) as kept:
            signed = kept.get("signed")
            yield Values(kept["cells"], kept["reached"], kept["rows"], int(kept["directions"]), signed)
