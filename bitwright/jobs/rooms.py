"""How many more jobs of a tenant may wait, or write checkpoints.

Counting those that wait costs more than accepting one; while there is plenty, the last count is used for a moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, select

from bitwright.jobs.engine import Transaction
from bitwright.jobs.states import RUNNING
from bitwright.jobs.tables import jobs
from bitwright.jobs.turns import WAITING

#: Seconds that a count is used.
FRESH = 1.0
#: Tenants whose counts are kept.
TENANTS = 1000


@dataclass
class _Known:
    left: int
    limit: int
    at: float


class Rooms:
    """Of one process. Exact when all jobs of a tenant come through one process; with several of them a tenant may pass
    the limit if the others accept more than half of it within FRESH."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def left(self, tx: Transaction, tenants: Iterable[str], limit: int) -> Counter[str]:
        """Jobs that each tenant may add; below half the limit they are counted anew."""
        found: Counter[str] = Counter()
        for tenant in tenants:
            known = self._known.get(tenant)
            plenty = known is not None and known.limit == limit and 2 * known.left > limit
            if known is None or not plenty or not 0 <= tx.now - known.at < FRESH:
                known = _Known(_count(tx, tenant, limit), limit, tx.now)
                with self._lock:
                    if len(self._known) >= TENANTS:
                        self._known.clear()
                    self._known[tenant] = known
            found[tenant] = known.left
        return found

    def took(self, tenant: str, count: int) -> None:
        """That many have been added, or tried to."""
        with self._lock:
            if tenant in self._known:
                self._known[tenant].left -= count


def writing(tx: Transaction, tenant: str) -> int:
    """Jobs of a tenant that write checkpoints (their requests name a container) and have not ended, by two indexes: of
    what waits and of what runs."""
    mine = (jobs.c.tenant == tenant, jobs.c.parent_id.is_(None), jobs.c.request["to"].as_string().is_not(None))
    counts = (select(func.count()).where(state, *mine) for state in (WAITING, jobs.c.state == RUNNING))
    return sum(int(tx.connection.execute(count).scalar_one()) for count in counts)


def _count(tx: Transaction, tenant: str, limit: int) -> int:
    waiting = select(jobs.c.id).where(WAITING, jobs.c.tenant == tenant, jobs.c.parent_id.is_(None))
    counted = select(func.count()).select_from(waiting.limit(limit).subquery())
    return limit - int(tx.connection.execute(counted).scalar_one())
