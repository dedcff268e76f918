"""Prometheus text exposition of the job table's state (research/06 A3: gauges derived from the database at scrape)."""

from __future__ import annotations

from collections.abc import Iterable

import bitwright
from bitwright.jobs.states import STATES
from service.state import State


def exposition(state: State) -> str:
    """Version 0.0.4 text format."""
    found = state.store.statistics()
    lines = [
        *_family("bitwright_info", "gauge", "version of this server", [(f'version="{bitwright.__version__}"', 1)]),
        *_family(
            "bitwright_jobs", "gauge", "jobs by state", [(f'state="{s}"', found.states.get(s, 0)) for s in STATES]
        ),
        *_family(
            "bitwright_queue_depth",
            "gauge",
            "jobs waiting by queue",
            [(f'queue="{q}"', n) for q, n in sorted(found.queued.items())],
        ),
        *_family(
            "bitwright_queue_oldest_seconds",
            "gauge",
            "age of the oldest job that could run now",
            [("", found.oldest_queued_seconds)],
        ),
        *_family(
            "bitwright_expired_leases", "gauge", "running jobs whose lease has passed", [("", found.expired_leases)]
        ),
    ]
    if state.settings.broker_url is not None:  # without a broker nobody delivers rings, and none is missing
        lines += _family("bitwright_outbox_unsent", "gauge", "rings not yet delivered", [("", found.unsent)])
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> list[str]:
    rows = [f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in samples]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *rows]
