"""Sending webhooks as Standard Webhooks does: signed, thin, at least once, never inside a job's transaction."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from email.utils import parsedate_to_datetime

from bitwright.core.errors import BitwrightError
from bitwright.jobs.failpoints import SENT_BEFORE_SETTLED, failpoint
from bitwright.jobs.signing import Signer
from bitwright.jobs.store import JobStore
from bitwright.jobs.values import Delivery
from bitwright.settings import Settings

#: A pause of the ladder is stretched by up to this part, so that receivers that failed together are not asked together.
JITTER = 0.1
#: A receiver may ask for a pause of at most so many seconds.
LONGEST_ASKED = 86_400.0
_log = logging.getLogger("bitwright.worker")


def send_until(stopping: threading.Event, store: JobStore, settings: Settings) -> None:
    """Send what is due until told to stop; a database that fails is asked again at the next turn."""
    sender: Sender | None = None
    while not stopping.is_set():
        try:
            due = store.take_deliveries()
            if due and sender is None:  # most installations never send one: no client, no secret
                sender = Sender(store, settings)
            for found in due:
                if stopping.is_set():
                    break
                assert sender is not None
                sender.send(found)
        except BitwrightError as error:
            _log.warning("no webhooks now: %s", error.detail)
            due = []
        if not due:
            stopping.wait(settings.webhook_poll_seconds)
    if sender is not None:
        sender.close()


class Sender:
    """One HTTP client and the secrets of this installation."""

    def __init__(self, store: JobStore, settings: Settings) -> None:
        self._store = store
        self._signer = Signer(settings.state_dir)
        from worker.egress import client  # loaded with the first delivery: a sixth of what a worker needs to start

        self._http = client(settings.webhook_internal, seconds=settings.webhook_seconds, proxy=settings.webhook_proxy)

    def send(self, found: Delivery) -> Delivery:
        """One try, and what it means for the next."""
        status, error, retry_after = self._try(found)
        failpoint(SENT_BEFORE_SETTLED)
        jitter = 1 + JITTER * random.random()
        after = self._store.settle_delivery(found, status=status, error=error, retry_after=retry_after, jitter=jitter)
        _log.info("webhook %s of job %s: %s", found.id, found.job_id, error or after.state)
        return after

    def close(self) -> None:
        self._http.close()

    def _try(self, found: Delivery) -> tuple[int | None, str | None, float]:
        """(status, what went wrong, seconds to wait at least). The answer's body is never read."""
        import httpx

        body = json.dumps(found.payload, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "bitwright-webhooks",
            **self._signer.headers(found.id, int(time.time()), body, found.tenant),
        }
        try:
            with self._http.stream("POST", found.url, content=body, headers=headers) as answer:
                status = answer.status_code
                wait = answer.headers.get("retry-after", "")
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return None, f"{type(error).__name__}: {error}"[:200], 0.0
        if 200 <= status < 300:
            return status, None, 0.0
        return status, f"the receiver answered {status}", asked_seconds(wait, time.time())


def asked_seconds(retry_after: str, now: float) -> float:
    """Seconds that a `Retry-After` asks for, as a number or a date (RFC 9110 section 10.2.3), at most a day; 0 for none
    and for what is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after[:9]), LONGEST_ASKED)
    try:
        moment = parsedate_to_datetime(retry_after).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(0.0, moment - now), LONGEST_ASKED)
