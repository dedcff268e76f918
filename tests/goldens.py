"""Golden files: reviewed outputs. `BITWRIGHT_UPDATE_GOLDEN=1` writes them anew; the diff is then reviewed."""

from __future__ import annotations

import difflib
import os
from pathlib import Path


def check_golden(path: Path, text: str) -> None:
    """Compare `text` with the golden file, or write it when asked to."""
    if os.environ.get("BITWRIGHT_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return
    assert path.is_file(), f"{path.name} is missing: run with BITWRIGHT_UPDATE_GOLDEN=1 and review it"
    golden = path.read_text("utf-8")
    lines = difflib.unified_diff(golden.splitlines(), text.splitlines(), "golden", "now", lineterm="")
    assert golden == text, "\n".join(lines)
