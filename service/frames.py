"""Frames between the service and its solver processes: two lengths, a JSON header, a payload. No pickles."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import IO, Any, Protocol

LENGTHS = struct.Struct(">II")
#: Most bytes moved at once.
CHUNK = 1 << 16


class Source(Protocol):
    """What a frame is read from: gives fewer bytes than asked for only at its end."""

    def read(self, count: int, /) -> bytes: ...


def frame_bytes(header: dict[str, Any], payload: bytes) -> bytes:
    head = json.dumps(header).encode()
    return LENGTHS.pack(len(head), len(payload)) + head + payload


def write_frame(out: IO[bytes], header: dict[str, Any], payload: bytes) -> None:
    out.write(frame_bytes(header, payload))
    out.flush()


class TimedReader:
    """Reads a pipe until a moment (of `time.monotonic`); past it, what is there so far is the end."""

    def __init__(self, descriptor: int, end: float) -> None:
        self._descriptor = descriptor
        self._end = end
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def read(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count > 0:
            left = self._end - time.monotonic()
            if left <= 0 or not self._poll.poll(1000 * left):
                break
            part = os.read(self._descriptor, min(count, CHUNK))
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def send_timed(descriptor: int, data: bytes, end: float) -> None:
    """Write to a pipe until that moment. Raises OSError when the reader is gone or has not taken it by then."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    os.set_blocking(descriptor, False)
    rest = memoryview(data)
    while rest:
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(1000 * left):
            raise TimeoutError("the other end does not read")
        rest = rest[os.write(descriptor, rest[:CHUNK]) :]


def read_frame(source: Source) -> tuple[dict[str, Any], bytes] | None:
    """One frame, or None at the end of the stream."""
    lengths = source.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head, payload = LENGTHS.unpack(lengths)
    header = source.read(head)
    body = source.read(payload)
    return (json.loads(header), body) if len(body) == payload else None
