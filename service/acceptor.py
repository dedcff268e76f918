"""Jobs accepted together: requests that come at the same time share one transaction, and with it one wait for the disk.

A request waits for nothing but that transaction: the first one opens it at once, and those that come while it commits
form the next. Each gets an answer of its own (`bitwright.jobs.create`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from anyio import to_thread

from bitwright.core.errors import BitwrightError, Temporary
from bitwright.jobs.create import Answer, NewJob
from bitwright.jobs.failpoints import ACCEPTED_BEFORE_ANSWER, failpoint
from bitwright.jobs.store import JobStore
from bitwright.jobs.values import Created

#: Jobs in one transaction: enough to make the wait for the disk cheap, few enough that none waits long for the others.
TOGETHER = 128


class Acceptor:
    """Used from the event loop only; the database work is done in a worker thread."""

    def __init__(self, store: JobStore, queued_limit: int) -> None:
        self._store = store
        self._limit = queued_limit
        self._waiting: deque[tuple[NewJob, asyncio.Future[Answer]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def accept(self, new: NewJob) -> Created:
        """The job once it is on disk. Raises what refuses it, or Temporary when the database does not answer."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((new, answer))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        found = await asyncio.shield(answer)
        if isinstance(found, BitwrightError):
            raise found
        return found

    async def _work(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            answers = await to_thread.run_sync(self._accepted, [new for new, _ in taken])
            for (_, future), answer in zip(taken, answers, strict=True):
                with contextlib.suppress(asyncio.InvalidStateError):  # its request was given up meanwhile
                    future.set_result(answer)

    def _accepted(self, news: list[NewJob]) -> list[Answer]:
        try:
            answers = self._store.create_many(news, self._limit)
        except BitwrightError as error:
            return [error for _ in news]
        except Exception:
            if len(news) == 1:
                return [Temporary("the job could not be stored", hint="try again; if it stays, tell the operator")]
            return [answer for new in news for answer in self._accepted([new])]  # one of them must not harm the others
        failpoint(ACCEPTED_BEFORE_ANSWER)
        return answers
