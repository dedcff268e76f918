"""What a child runs: the validated request of a job, or one part of it, with the settings and a context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bitwright.core.requests import parse_request
from bitwright.settings import Settings
from worker import steps
from worker.fanout import do_part
from worker.steps.context import Context


def run(
    request: dict[str, Any], settings: dict[str, Any], progress: Callable[[str, float, str], None]
) -> dict[str, Any]:
    """Do one job from plain JSON to plain JSON. Raises BitwrightError."""
    if request["kind"] == "step":
        return {"part": do_part(request, Context(Settings(**settings), progress))}
    return steps.run(parse_request(request), Context(Settings(**settings), progress))
