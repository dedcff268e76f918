"""A bench to run jobs on, as the local command line does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.core.requests import parse_request
from bitwright.settings import Settings
from worker.steps import run
from worker.steps.context import Context

#: Small enough for a test, large enough that the mixed plan clearly beats the uniform one.
TOKENS = {"calibration_tokens": 2048, "confirm_tokens": 2048, "samples": 2}


class Bench:
    """A state folder, and jobs run in it as the local command line does; `stages` records the progress reported."""

    def __init__(self, state: Path) -> None:
        self.settings = Settings(state_dir=state)
        self.stages: list[str] = []

    def context(self, *, allow_path: bool = True, out: Path | None = None) -> Context:
        return Context(self.settings, lambda stage, *_: self.stages.append(stage), allow_path=allow_path, out_dir=out)

    def run(self, kind: str, *, out: Path | None = None, allow_path: bool = True, **members: Any) -> dict[str, Any]:
        return run(parse_request({"kind": kind, **members}), self.context(allow_path=allow_path, out=out))
