"""How much chaos: the short form of the suite, or the long one of `make chaos`. Every failure names its seed."""

from __future__ import annotations

import os
import random

FULL = os.environ.get("BITWRIGHT_TEST_CHAOS") == "full"
SEED = int(os.environ.get("BITWRIGHT_TEST_CHAOS_SEED", str(random.randrange(2**31))))


def size(full: int, short: int) -> int:
    return full if FULL else short


def within(goal: float) -> float:
    """Seconds that a measured time may take: the goal in the long form; in the suite, which runs beside anything, only
    what no slow machine explains."""
    return goal if FULL else 20 * goal


def reproduce(test: str) -> str:
    """The one command that runs a test again with this seed."""
    full = "BITWRIGHT_TEST_CHAOS=full " if FULL else ""
    return f"seed {SEED}; reproduce: {full}BITWRIGHT_TEST_CHAOS_SEED={SEED} python -m pytest {test}"
