"""The tiny job of the chaos tests: leave a mark, take a moment, answer with one's own number."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(
    request: dict[str, Any], settings: dict[str, Any], progress: Callable[[str, float, str], None]
) -> dict[str, Any]:
    number = int(request["model"])
    progress("working", 0.5, str(number))
    with (Path(settings["state_dir"]) / "effects").open("a") as file:
        file.write(f"{number} {os.getpid()}\n")
    time.sleep(0.02)
    # The private folder of an attempt is named <job>-<attempt>: the result says which attempt it is of.
    return {"number": number, "attempt": int(os.environ["TMPDIR"].rpartition("-")[2])}
