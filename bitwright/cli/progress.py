"""The progress bar on stderr: shown on a terminal or with --progress, silent elsewhere."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: (stage, fraction of it from 0 to 1, message)
Progress = Callable[[str, float, str], None]
_WIDTH = 40


@contextmanager
def progress_bar(args: Namespace) -> Iterator[Progress]:
    """A callback that moves the bar; the bar is closed at the end, whatever happens."""
    if not (args.progress or (args.progress is None and sys.stderr.isatty())):
        yield _silent
        return
    from tqdm import tqdm

    bar = tqdm(
        total=100, file=sys.stderr, mininterval=0.2, leave=True, dynamic_ncols=True,
        bar_format="{desc:<10.10} {percentage:3.0f}%|{bar:25}| {elapsed} {postfix}",
    )  # fmt: skip
    try:
        yield _Mover(bar)
    finally:
        bar.close()


def _silent(stage: str, fraction: float, message: str) -> None:
    """Nobody watches."""


class _Mover:
    """Moves one bar; a new stage starts it again from the left."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._stage = ""

    def __call__(self, stage: str, fraction: float, message: str) -> None:
        place = round(100 * min(1.0, max(0.0, fraction)))
        self._bar.set_postfix_str(message[:_WIDTH], refresh=False)
        if stage != self._stage or place < self._bar.n:
            self._stage = stage
            self._bar.set_description_str(stage, refresh=False)
            self._bar.n = place
            self._bar.refresh()
        elif place > self._bar.n:
            self._bar.update(place - self._bar.n)
