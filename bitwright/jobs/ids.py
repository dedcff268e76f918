"""Job names that sort by time (UUID version 7, RFC 9562 section 5.7): 48 bits of milliseconds, then chance."""

from __future__ import annotations

import secrets
import uuid


def new_id(now: float) -> str:
    """`now`: seconds since 1970."""
    milliseconds = int(now * 1000) & (2**48 - 1)
    chance = secrets.randbits(74)
    value = milliseconds << 80 | 0x7 << 76 | (chance >> 62) << 64 | 0b10 << 62 | chance & (2**62 - 1)
    return str(uuid.UUID(int=value))
