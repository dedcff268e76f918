"""One metric's table for benchmarks.metrics, in a process of its own, so that its seconds and peak memory are its own.

Run by benchmarks.metrics:  python -m benchmarks.metric_scores MODEL METRIC FOLDER CALIBRATION TOKENS TEST SEED
(CALIBRATION "-": the bundled data). Writes FOLDER/METRIC.npz and FOLDER/METRIC.json: CPU seconds once libraries and the
model are in memory, and the peak of what was resident in MiB; or, of a metric that cannot score this model, why not.
A run that was stopped goes on from its half-done sums (FOLDER/METRIC.partial), and its seconds count.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metric_plans import FORMATS
from bitwright.core.errors import Unsupported
from bitwright.core.table import SensitivityTable, load_table
from bitwright.models import inspect, open_model
from sensitivity import calibration
from sensitivity.partial import State
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from worker.steps.partial import PartialFile, kept_in

#: Name of the seconds spent among what is kept of half-done sums.
SPENT = "seconds spent"


@dataclass(frozen=True)
class Question:
    """What every metric of a report is asked. tokens, test: of the scoring and of the confirming part."""

    model: str
    calibration: str | None
    tokens: int
    test: int
    seed: int

    def arguments(self) -> list[str]:
        return [self.calibration or "-", *map(str, (self.tokens, self.test, self.seed))]


@dataclass(frozen=True)
class Scored:
    """A metric's table and what it cost; table None: the metric cannot score this model, and `why` says why."""

    table: SensitivityTable | None
    seconds: float = 0.0
    peak_mib: int = 0
    why: str = ""


class Timed:
    """Half-done sums and the CPU seconds that they took."""

    def __init__(self, file: PartialFile) -> None:
        self._file, self._before, self._start = file, 0.0, time.process_time()

    def load(self) -> State:
        state = dict(self._file.load())
        self._before = float(state.pop(SPENT, 0.0))
        return state

    def save(self, state: Callable[[], State]) -> None:
        self._file.save(lambda: {**state(), SPENT: np.array(self.seconds())})

    def seconds(self) -> float:
        return self._before + time.process_time() - self._start


def scored(metric: str, question: Question, folder: Path) -> Scored:
    """The metric's table, made in a process of its own or, where one was kept, of an earlier run."""
    told = folder / f"{metric}.json"
    if not told.exists():
        command = [sys.executable, "-m", "benchmarks.metric_scores", question.model, metric, str(folder)]
        subprocess.run([*command, *question.arguments()], check=True)
    found: dict[str, Any] = json.loads(told.read_text())
    if "why" in found:
        return Scored(None, why=found["why"])
    return Scored(load_table(folder / f"{metric}.npz"), found["seconds"], found["peak_mib"])


def main() -> None:
    model, metric, folder, spec, tokens, test, seed = sys.argv[1:]
    source = open_model(model)
    inventory = inspect(source)
    parts = calibration.load(
        None if spec == "-" else spec, source, inventory, scoring_tokens=int(tokens), confirming_tokens=int(test),
        seed=int(seed),
    )  # fmt: skip
    load_runner(source, inventory)
    with kept_in(Path(folder) / f"{metric}.partial") as file:
        partial = Timed(file)
        try:
            table = score(source, inventory, FORMATS, metric=metric, calibration=parts, seed=int(seed), partial=partial)
        except Unsupported as error:
            found: dict[str, Any] = {"why": str(error).splitlines()[0]}
        else:
            seconds = partial.seconds()
            found = {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
            table.save(Path(folder) / f"{metric}.npz")
    (Path(folder) / f"{metric}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
