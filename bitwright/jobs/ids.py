"""Job names that sort by time (UUID version 7, RFC 9562 section 5.7): 48 bits of milliseconds, then chance.

Names of one process also sort by the order in which they were given: within a millisecond, and after a small step back
of the clock, chance counts on from the last name (RFC 9562 section 6.2, method 2).
"""

from __future__ import annotations

import secrets
import threading
import uuid

CHANCE_BITS = 74
#: Counting on takes steps of up to this, so that a name does not tell the next one.
STEP = 2**32
#: A clock that goes back further than this (milliseconds) was set; names follow it.
SET_BACK = 10_000


class _Names:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = (0, 0)

    def next(self, milliseconds: int) -> tuple[int, int]:
        """(milliseconds, chance), greater than the last pair unless the clock was set back."""
        with self._lock:
            last, chance = self._last
            if milliseconds > last or milliseconds < last - SET_BACK:
                self._last = (milliseconds, secrets.randbits(CHANCE_BITS - 1))
            else:
                chance += 1 + secrets.randbelow(STEP)
                # Half of the range is free above a first name: 2^41 names of one millisecond.
                self._last = (last, chance) if chance < 2**CHANCE_BITS else (last + 1, chance - 2**CHANCE_BITS)
            return self._last


_names = _Names()


def new_id(now: float) -> str:
    """`now`: seconds since 1970."""
    milliseconds, chance = _names.next(int(now * 1000) & (2**48 - 1))
    value = milliseconds << 80 | 0x7 << 76 | (chance >> 62) << 64 | 0b10 << 62 | chance & (2**62 - 1)
    return str(uuid.UUID(int=value))
