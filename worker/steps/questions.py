"""Why something is scored: what was asked of a model before, and how a new question differs from the nearest of them.

A cache that misses without a word looks like a cache that does not work. The last questions of a model (by its
reference, so that changed files are told too) are kept beside the blobs; they decide nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.core.canonical import atomic_write, canonical_json, digest_json
from worker.steps.context import Context

KEPT = 32
#: Members of a question, in words.
WORDS = {
    "model": "the model's files", "units": "the planned units", "metric": "the metric",
    "options": "the metric's options", "samples": "label samples",
    "granularity": "the granularity", "quantizer": "the quantizer", "formats": "the formats, scored together here",
    "calibration": "the calibration data", "tokens": "calibration tokens", "seed": "the seed",
    "numerics": "how this version computes",
}  # fmt: skip
#: Told with both values; the others are digests or long.
SHORT = ("metric", "samples", "granularity", "tokens", "seed", "numerics", "options")

Question = Mapping[str, Any]


def why_new(reference: str, question: Question, context: Context) -> str:
    """Why nothing kept answers this question, in words for people; the question is remembered."""
    path = context.blobs.path("questions", digest_json({"reference": reference}))
    before = _read(path)
    plain = json.loads(canonical_json(dict(question)))
    with atomic_write(path) as file:
        file.write(canonical_json([plain, *(one for one in before if one != plain)][:KEPT]))
    if plain in before:
        return "scored before, but the table is not kept any more"
    if not before:
        return "this model was not scored here before"
    nearest = min(before, key=lambda one: len(_differing(one, plain)))
    return "scored anew, because it differs from the nearest table kept: " + "; ".join(
        _told(name, nearest.get(name), plain.get(name)) for name in _differing(nearest, plain)
    )


def _differing(one: Question, other: Question) -> list[str]:
    return [name for name in WORDS if one.get(name) != other.get(name)]


def _told(name: str, before: Any, now: Any) -> str:
    if name in SHORT:
        return f"{WORDS[name]}: {_short(before)} -> {_short(now)}"
    return f"{WORDS[name]} changed"


def _short(value: Any) -> str:
    return "default" if value in (None, {}) else str(value)[:60]


def _read(path: Path) -> list[dict[str, Any]]:
    """What was kept; nothing of a file that a failing disk left unreadable."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
