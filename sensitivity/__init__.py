"""How much a model's output suffers when a unit is stored in a format. One file a metric; see catalog.py."""

from __future__ import annotations

from typing import Any

__all__ = ["score"]


def __getattr__(name: str) -> Any:
    if name == "score":
        from sensitivity.scoring import score

        return score
    raise AttributeError(name)
