"""Jobs accepted together: requests that come at the same time share one transaction, and with it one wait for the disk.

A request waits for nothing but that transaction: the first one opens it at once, and those that come while it commits
form the next. Each gets an answer of its own (`bitwright.jobs.create`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from anyio import to_thread

from bitwright.core.errors import BitwrightError, Internal, Temporary
from bitwright.jobs.create import Answer, NewJob
from bitwright.jobs.failpoints import ACCEPTED_BEFORE_ANSWER, failpoint
from bitwright.jobs.store import JobStore
from bitwright.jobs.values import Created

#: Jobs in one transaction: enough to make the wait for the disk cheap, few enough that none waits long for the others.
TOGETHER = 128


#: Checks a request and says what is to be created. Raises BitwrightError.
Prepare = Callable[[], NewJob]
log = logging.getLogger("bitwright.service")


def _checked(prepare: Prepare) -> NewJob | BitwrightError:
    try:
        return prepare()
    except BitwrightError as error:
        return error
    except Exception:  # one request must not take those beside it down
        log.exception("a request could not be checked")
        return Internal("the request could not be checked; it is logged", hint="report it if it stays")


class Acceptor:
    """Used from the event loop only; the database work is done in a worker thread."""

    def __init__(self, store: JobStore, queued_limit: int, writing_limit: int) -> None:
        self._store = store
        self._limits = queued_limit, writing_limit
        self._waiting: deque[tuple[Prepare, asyncio.Future[Answer]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def accept(self, prepare: Prepare) -> Created:
        """The job once it is on disk. `prepare` checks the request, in a worker thread: it may look at files.

        Raises what refuses it, or Temporary when the database does not answer."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((prepare, answer))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        found = await asyncio.shield(answer)
        if isinstance(found, BitwrightError):
            raise found
        return found

    async def _work(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            answers = await to_thread.run_sync(self._prepared, [prepare for prepare, _ in taken])
            for (_, future), answer in zip(taken, answers, strict=True):
                with contextlib.suppress(asyncio.InvalidStateError):  # its request was given up meanwhile
                    future.set_result(answer)

    def _prepared(self, prepares: list[Prepare]) -> list[Answer]:
        """Check each request, store those that are right, give each its answer."""
        checked = [_checked(prepare) for prepare in prepares]
        stored = iter(self._accepted([found for found in checked if isinstance(found, NewJob)]))
        return [next(stored) if isinstance(found, NewJob) else found for found in checked]

    def _accepted(self, news: list[NewJob]) -> list[Answer]:
        if not news:
            return []
        try:
            answers = self._store.create_many(news, *self._limits)
        except BitwrightError as error:
            return [error for _ in news]
        except Exception:
            if len(news) == 1:
                log.exception("a job could not be stored")
                return [Temporary("the job could not be stored", hint="try again; if it stays, tell the operator")]
            return [answer for new in news for answer in self._accepted([new])]  # one of them must not harm the others
        failpoint(ACCEPTED_BEFORE_ANSWER)
        return answers
