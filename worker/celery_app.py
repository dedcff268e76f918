"""Celery as a doorbell: it says "queue X has work" to a free slot, and nothing else. Settings: research/06 B2.

No result backend, no late acknowledgement, no time limits, no ETA messages, no chords: the job table does all that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu as _kombu
from celery import Celery

from bitwright.core.errors import InvalidSetting
from bitwright.settings import Settings
from worker.relay import Broker, BrokerDown

RING = "bitwright.ring"
#: Kombu publishes no types.
kombu: Any = _kombu


def queue_of(name: str) -> Any:
    """The broker queue of a job queue."""
    return kombu.Queue(f"q.{name}", kombu.Exchange("bitwright", type="direct"), routing_key=name, durable=True)


def make_app(settings: Settings) -> Celery:
    """Raises InvalidSetting without a broker, or with a database that other hosts cannot reach."""
    if settings.broker_url is None:
        raise InvalidSetting(
            "distributed mode needs a broker", expected="BITWRIGHT_BROKER_URL=redis://host:6379/0", got="nothing"
        )
    if not settings.resolved_database_url.startswith("postgresql"):
        raise InvalidSetting(
            "distributed mode needs a database that every host can reach",
            expected="BITWRIGHT_DATABASE_URL=postgresql+psycopg://user@host/name",
            got="SQLite, one host's file",
        )
    app = Celery("bitwright", broker=settings.broker_url, set_as_current=False)
    app.conf.update(_configuration())
    return app


def _configuration() -> dict[str, Any]:
    return {
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_delivery_mode": "persistent",
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_enable_remote_control": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": 300,
            "socket_keepalive": True,
            "socket_timeout": 10,
            "health_check_interval": 25,
            "global_keyprefix": "bw:",
        },
    }


def broker_of(app: Celery) -> Broker:
    """The relay's view of the broker, on a connection of its own that is made anew after each trouble."""
    held: list[Any] = []

    @contextmanager
    def connection() -> Iterator[Any]:
        if not held:
            held.append(app.connection_for_write(connect_timeout=5))
        try:
            yield held[0]
        except (kombu.exceptions.KombuError, OSError, *held[0].connection_errors, *held[0].channel_errors) as error:
            held.pop().release()
            raise BrokerDown(f"{type(error).__name__}: {error}") from error

    def ring(queue: str, job_id: str) -> None:
        with connection() as link:
            app.send_task(RING, args=[job_id], queue=queue_of(queue), connection=link, retry=False)

    def depth(queue: str) -> int:
        with connection() as link, link.channel() as channel:
            return int(queue_of(queue).bind(channel).queue_declare().message_count)

    return Broker(ring, depth)
