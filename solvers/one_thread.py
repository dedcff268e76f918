"""Linear algebra on one thread while a solver runs.

Its matrices are small, so a second thread gains next to nothing; on a machine with other work each call waits until the
second thread is given the CPU, hundreds of times in a solve (beside six busy processes `vector` took twice as long).
And sums are then made in one order on every machine: the same plan.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_GUARD = threading.Lock()
#: The limit in force, and for how many solves: the first one sets it, the last one gives back what was there before.
_held: list[Any] = []
_users = 0


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Also a decorator: `@one_thread()`."""
    global _users
    with _GUARD:
        if _users == 0:
            _held.append(_controller().limit(limits=1, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _GUARD:
            _users -= 1
            if _users == 0:
                _held.pop().restore_original_limits()
