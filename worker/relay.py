"""From the outbox to the broker, and again when the broker has forgotten. Knows no broker: it is handed two functions.

At least once by design. A broker that is down or was emptied delays work, and loses none (research/06 B2).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bitwright.core.errors import BitwrightError
from bitwright.jobs.outbox import Message
from bitwright.jobs.store import JobStore
from bitwright.settings import Settings

#: Most messages put into an empty broker queue at once; the next turn brings more if they were all taken.
REFILL = 500
_log = logging.getLogger("bitwright.worker")


class BrokerDown(Exception):
    """The broker does not take messages now."""


@dataclass(frozen=True)
class Broker:
    """ring: publish one message for a queue; depth: messages waiting in a queue. Both raise BrokerDown."""

    ring: Callable[[str, str], None]
    depth: Callable[[str], int]


class Relay:
    """Runs in every distributed worker; rows that one relay holds are passed over by the others."""

    def __init__(self, store: JobStore, broker: Broker, settings: Settings) -> None:
        self._store = store
        self._broker = broker
        self._settings = settings
        self._healed = 0.0

    def run_until(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                more = self.turn()
            except (BrokerDown, BitwrightError) as error:
                _log.warning("no doorbell now: %s", error)
                more = False
            if not more:
                stopping.wait(self._settings.relay_seconds)

    def turn(self) -> bool:
        """Publish what is due, and heal now and then; whether there may be more at once."""
        published = self._store.publish_due(self._publish)
        if time.monotonic() - self._healed >= self._settings.heal_seconds:
            self.heal()
            self._healed = time.monotonic()
        return published > 0

    def heal(self) -> int:
        """Ring for jobs that wait while the broker's queue is empty: their messages were lost. The number of rings."""
        rung = 0
        for queue, waiting in self._store.waiting_longer_than(self._settings.heal_seconds).items():
            if self._broker.depth(queue) == 0:
                for _ in range(min(waiting, REFILL)):
                    self._broker.ring(queue, "")
                    rung += 1
        if rung:
            _log.warning("the broker had lost messages: rang again for %d jobs", rung)
        return rung

    def _publish(self, message: Message) -> None:
        self._broker.ring(message.queue, message.job_id)
