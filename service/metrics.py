"""Prometheus text exposition.

What is true of the installation is read from the job table at scrape (research/06 A3): the same numbers whichever
replica answers, also after a restart. What this process does (requests, synchronous solves) it counts itself.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import bitwright
from bitwright.jobs.states import QUEUES, STATES
from bitwright.jobs.values import Finished

if TYPE_CHECKING:
    from service.state import State

#: Jobs that ended in this many last seconds make up durations, gaps, cache hits and memory.
WINDOW = 3600.0
QUANTILES = (0.5, 0.9, 0.99)
Samples = Iterable[tuple[str, float]]


class Counts:
    """Requests of this process by method, route and status, and the seconds they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str, int], list[float]] = defaultdict(lambda: [0, 0.0])

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        with self._lock:
            entry = self._found[(method, route, status)]
            entry[0] += 1
            entry[1] += seconds

    def samples(self, index: int) -> Samples:
        """index 0: numbers of requests; 1: seconds."""
        with self._lock:
            return [
                (f'method="{m}",route="{r}",status="{s}"', entry[index]) for (m, r, s), entry in self._found.items()
            ]


def exposition(state: State) -> str:
    """Version 0.0.4 text format."""
    found = state.store.statistics()
    finished = state.store.finished_since(WINDOW)
    queues = sorted(found.queued.items())
    families = [
        _family("bitwright_info", "gauge", "version of this server", [(f'version="{bitwright.__version__}"', 1)]),
        _family("bitwright_jobs", "gauge", "jobs by state", [(f'state="{s}"', found.states.get(s, 0)) for s in STATES]),
        _family("bitwright_queue_depth", "gauge", "jobs waiting by queue", [(f'queue="{q}"', n) for q, n in queues]),
        _family(
            "bitwright_queue_oldest_seconds", "gauge", "age of the oldest job that could run now, by queue",
            [(f'queue="{queue}"', found.oldest.get(queue, 0.0)) for queue in sorted({*QUEUES, *found.oldest})],
        ),
        _family("bitwright_expired_leases", "gauge", "running jobs past their lease", [("", found.expired_leases)]),
        *_of_finished(finished),
        _family("bitwright_http_requests_total", "counter", "requests answered here", state.counts.samples(0)),
        _family("bitwright_http_seconds_total", "counter", "seconds of these requests", state.counts.samples(1)),
        _family(
            "bitwright_solves_total", "counter", "synchronous solves here by certificate",
            [(f'status="{status}"', count) for status, count in sorted(state.pool.statuses.items())],
        ),
        _family("bitwright_solve_gap_max", "gauge", "largest gap of them", [("", state.pool.largest_gap)]),
    ]  # fmt: skip
    if state.settings.broker_url is not None:  # without a broker nobody delivers rings, and none is missing
        families.append(_family("bitwright_outbox_unsent", "gauge", "rings not yet delivered", [("", found.unsent)]))
    return "\n".join(line for lines in families for line in lines) + "\n"


def _of_finished(finished: Sequence[Finished]) -> Iterable[list[str]]:
    """What the jobs of the last hour say."""
    ends: dict[str, int] = defaultdict(int)
    for one in finished:
        ends[f'kind="{one.kind}",state="{one.state}"'] += 1
    hits = sum("same_work_as" in one.measures for one in finished)
    yield _family("bitwright_jobs_ended_last_hour", "gauge", "jobs that ended in the last hour", sorted(ends.items()))
    yield _family("bitwright_cache_hits_last_hour", "gauge", "of these, answered by earlier work", [("", hits)])
    worked = [one for one in finished if "same_work_as" not in one.measures]
    for name, text, value in (
        ("bitwright_job_wait_seconds", "seconds from acceptance to start", lambda one: one.wait),
        ("bitwright_job_run_seconds", "seconds from start to end", lambda one: one.run),
    ):
        yield _family(name, "gauge", f"{text}, last hour", _quantiles(worked, value))
    for name, text, key in (
        ("bitwright_child_peak_memory_bytes", "largest resident memory of a child", "peak_memory"),
        ("bitwright_plan_gap_max", "largest gap of a plan", "gap"),
    ):
        most: dict[str, float] = {}
        for one in worked:
            if key in one.measures:
                label = f'kind="{one.kind}"'
                most[label] = max(most.get(label, 0.0), float(one.measures[key]))
        yield _family(name, "gauge", f"{text}, last hour", sorted(most.items()))


def _quantiles(finished: Sequence[Finished], value: Callable[[Finished], float]) -> Samples:
    by_kind: dict[str, list[float]] = defaultdict(list)
    for one in finished:
        by_kind[one.kind].append(value(one))
    for kind, values in sorted(by_kind.items()):
        values.sort()
        for quantile in QUANTILES:
            place = min(len(values) - 1, int(quantile * len(values)))
            yield f'kind="{kind}",quantile="{quantile}"', values[place]


def _family(name: str, kind: str, text: str, samples: Samples) -> list[str]:
    rows = [f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in samples]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *rows]
