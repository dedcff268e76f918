"""transformers writes warnings and progress bars to stderr; bitwright shows its own."""

from __future__ import annotations

from typing import Any


def quiet() -> None:
    """Errors only, no bars, from transformers in this process."""
    from transformers.utils import logging

    talk: Any = logging
    talk.set_verbosity_error()
    talk.disable_progress_bar()
