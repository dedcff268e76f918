"""Where a text reference leads: a stored text by digest, or (locally) a file."""

from __future__ import annotations

from pathlib import Path

from bitwright.core.errors import InvalidCalibration, NotFound
from bitwright.core.requests import MADE
from worker.steps.context import Context


def locate_text(reference: str | None, context: Context) -> Path | str | None:
    """The file behind `sha256:...` or a local path; `random` and `self` as they are; None is the bundled default."""
    if reference is None or reference in MADE:
        return reference
    if reference.startswith("sha256:"):
        path = context.blobs.path("texts", reference)
        if not path.is_file():
            raise NotFound("there is no stored text of that digest", got=reference, hint="upload the text first")
        return path
    if not context.allow_path:
        raise InvalidCalibration(
            "a server reads stored texts only",
            expected="sha256:... of an uploaded text, or nothing for the bundled text",
            got=repr(reference)[:80],
        )
    return Path(reference)
