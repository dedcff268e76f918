"""A sample of every unit's inputs, for metrics that look at a layer's outputs: some calibration tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sensitivity.base import Progress
from sensitivity.data import Data
from sensitivity.input_moments import Watcher
from sensitivity.runner import Runner


def gather_rows(
    runner: Runner, data: Data, units: Sequence[int], count: int, progress: Progress
) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """(unit name -> name of the unit that holds its rows, rows by unit name: float32 (about `count`, in)).

    Every so many-th row of each batch, the first one always; an expert has its share. Units that no token
    reached are in neither.
    """
    step = max(1, data.tokens // max(1, count))
    kept: dict[int, list[torch.Tensor]] = {}

    def add(unit: int, rows: torch.Tensor) -> None:
        kept.setdefault(unit, []).append(rows[::step].float().clone())

    watcher = Watcher(runner, units, add)
    leaders = watcher.watch(runner, data, progress, f"inputs of {len(units)} units")
    names = [unit.name for unit in runner.inventory.units]
    return leaders, {names[unit]: torch.cat(rows) for unit, rows in kept.items() if sum(map(len, rows))}
