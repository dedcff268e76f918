"""Frames between the service and its solver processes: two lengths, a JSON header, a payload. No pickles."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

LENGTHS = struct.Struct(">II")


def write_frame(out: IO[bytes], header: dict[str, Any], payload: bytes) -> None:
    head = json.dumps(header).encode()
    out.write(LENGTHS.pack(len(head), len(payload)) + head + payload)
    out.flush()


def read_frame(source: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """One frame, or None at the end of the stream."""
    lengths = source.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head, payload = LENGTHS.unpack(lengths)
    header = source.read(head)
    body = source.read(payload)
    return (json.loads(header), body) if len(body) == payload else None
