"""What one tenant may hold open at once in this process: event streams, and requests that wait for a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from bitwright.core.errors import TooManyRequests


class Quotas:
    """Used from the event loop only."""

    def __init__(self, streams: int, waits: int) -> None:
        self._limits = {"event streams": streams, "waiting requests": waits}
        self._open: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def waiting(self, tenant: str) -> Iterator[None]:
        """For as long as a request waits. Raises TooManyRequests."""
        release = self._take("waiting requests", tenant)
        try:
            yield
        finally:
            release()

    def take_stream(self, tenant: str) -> Callable[[], None]:
        """Gives what releases it; calling that twice is the same as once. Raises TooManyRequests."""
        return self._take("event streams", tenant)

    def open_now(self, what: str, tenant: str) -> int:
        """How many of them this tenant holds."""
        return self._open[(what, tenant)]

    def _take(self, what: str, tenant: str) -> Callable[[], None]:
        key = (what, tenant)
        if self._open[key] >= self._limits[what]:
            raise TooManyRequests(
                f"too many {what} of this tenant are open",
                expected=f"at most {self._limits[what]}",
                hint="close some, or poll without waiting",
                retry_after=5,
            )
        self._open[key] += 1
        held = [True]

        def release() -> None:
            if held:
                held.clear()
                self._open[key] -= 1

        return release


async def released(stream: AsyncIterator[bytes], release: Callable[[], None]) -> AsyncIterator[bytes]:
    """The stream; its place is given back when it ends, however it ends."""
    try:
        async for chunk in stream:
            yield chunk
    finally:
        release()
