"""A job that is cut into parts, and what each part does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bitwright.settings import Settings
from worker.fanout import do_part, spread
from worker.steps.context import Context

Progress = Callable[[str, float, str], None]


def do(request: dict[str, Any], settings: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return {"part": do_part(request, Context(Settings(**settings), progress))}


def spread_out(count: int, settings: dict[str, Any], progress: Progress) -> list[str]:
    items = [{"number": number, "of": count} for number in range(count)]
    context = Context(Settings(**settings), progress)
    return [path.read_text() for path in spread(context, "score", f"{__name__}:write_part", items)]


def write_part(item: Mapping[str, Any], context: Context, path: Path) -> None:
    del context
    path.write_text(f"part {item['number']}")
