"""Server-sent events of a job, replayed from the durable event table (research/06 A3)."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping

from anyio import to_thread

from bitwright.core.errors import BitwrightError, InvalidInput
from bitwright.core.problem_check import INT64_MAX
from bitwright.jobs.values import Event
from service.state import State
from service.waiting import changed

HEADERS: Mapping[str, str] = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
#: Milliseconds a browser waits before it reconnects.
RETRY_MS = 2000
#: Events sent from one look at the table.
BATCH = 500


def last_event_id(header: str | None) -> int:
    """The id after which to resume; 0 from the beginning. Raises InvalidInput."""
    if header is None or header == "":
        return 0
    if not (header.isascii() and header.isdigit() and len(header) <= 19 and int(header) <= INT64_MAX):
        raise InvalidInput(
            "Last-Event-ID is not one of this server's", expected="the id of the last event seen", got=repr(header)[:60]
        )
    return int(header)


def frame(event: Event) -> bytes:
    text = json.dumps(event.to_json(), ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.id}\nevent: {event.type}\ndata: {text}\n\n".encode("utf-8", "replace")


async def job_events(state: State, job_id: str, last: int, still: Callable[[], None]) -> AsyncIterator[bytes]:
    """Frames until the job's last event, the server's stop, or `stream_seconds`.

    Comment lines while nothing happens. still: raises when the reader must not read any more.
    """
    settings = state.settings
    end = time.monotonic() + settings.stream_seconds
    yield f"retry: {RETRY_MS}\n\n".encode()
    try:
        while time.monotonic() < end and not state.stopping.is_set():
            # The job is read before its events: what ends it is then among them.
            job = await to_thread.run_sync(state.store.get, job_id)
            events = await to_thread.run_sync(state.store.events_after, job_id, last, BATCH)
            still()
            for event in events:
                last = event.id
                yield frame(event)
            if len(events) == BATCH:
                continue
            if job.done:
                return
            if not await changed(state, job_id, job.version, min(settings.ping_seconds, end - time.monotonic())):
                yield b": ping\n\n"
    except BitwrightError as error:
        # The job was removed, the key revoked, or the database is away: say so and let the client come again.
        yield f"event: error\ndata: {json.dumps(error.to_problem(), default=str)}\n\n".encode()
