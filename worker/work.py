"""What a job's child runs: the validated request, the settings and a context, handed to the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bitwright.core.requests import parse_request
from bitwright.settings import Settings
from worker import steps
from worker.steps.context import Context


def run(
    request: dict[str, Any], settings: dict[str, Any], progress: Callable[[str, float, str], None]
) -> dict[str, Any]:
    """Do one job from plain JSON to plain JSON. Raises BitwrightError."""
    return steps.run(parse_request(request), Context(Settings(**settings), progress))
