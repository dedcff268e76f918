"""A bench to run jobs on, as the local command line does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.core.requests import parse_request
from bitwright.settings import Settings
from worker.steps import run
from worker.steps.context import Context, Progress

#: Small enough for a test, large enough that the mixed plan clearly beats the uniform one.
TOKENS = {"calibration_tokens": 2048, "confirm_tokens": 2048, "samples": 2}


class Bench:
    """A state folder, and jobs run in it as the local command line does; `said` records the progress reported.

    listen: takes the progress instead. text: what calibrated plans were made on.
    """

    def __init__(self, state: Path, text: Path | None = None) -> None:
        self.text = text
        self.settings = Settings(state_dir=state)
        self.said: list[tuple[str, str]] = []
        self.listen: Progress | None = None

    def context(self, *, allow_path: bool = True, out: Path | None = None, problem_out: Path | None = None) -> Context:
        return Context(
            self.settings,
            self.listen or (lambda stage, _, message: self.said.append((stage, message))),
            allow_path=allow_path,
            out_dir=out,
            problem_out=problem_out,
        )

    def worked(self) -> set[str]:
        """Stages that went through the model item by item since `said` was cleared."""
        return {stage for stage, message in self.said if stage == "measure" or message.endswith(" items")}

    def run(
        self,
        kind: str,
        *,
        out: Path | None = None,
        problem_out: Path | None = None,
        allow_path: bool = True,
        **members: Any,
    ) -> dict[str, Any]:
        context = self.context(allow_path=allow_path, out=out, problem_out=problem_out)
        return run(parse_request({"kind": kind, **members}), context)
