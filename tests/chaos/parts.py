"""A job of parts, with nothing but the standard library behind it: thousands of children start in the test.

It speaks the protocol of `worker.fanout`: a report `fanout` with a stage and parts, by an exception of that name.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "worker.fanout"


class FanOut(Exception):
    """Stands in for `worker.fanout.FanOut`, whose module loads what real steps need."""

    def __init__(self, stage: str, parts: list[dict[str, Any]]) -> None:
        super().__init__(stage)
        self.stage, self.parts = stage, parts


def run(
    request: dict[str, Any], settings: dict[str, Any], progress: Callable[[str, float, str], None]
) -> dict[str, Any]:
    folder = Path(settings["state_dir"]) / "parts"
    folder.mkdir(exist_ok=True)
    if request["kind"] == "step":
        (folder / request["part"]).write_text(str(os.getpid()))
        return {"part": request["part"]}
    job = os.environ["TMPDIR"].rpartition("/")[2].rpartition("-")[0]
    names = [f"{job}.{number}" for number in range(int(request["model"]))]
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        stand_in = types.ModuleType(NAME)
        stand_in.FanOut = FanOut  # type: ignore[attr-defined]
        sys.modules[NAME] = stand_in
        raise FanOut("score", [{"part": name} for name in missing])
    return {"parts": len(names)}
