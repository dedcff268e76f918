"""Rows inserted in one statement, and the count of waiting jobs that is not made anew each time."""

from __future__ import annotations

from collections import Counter

import pytest

from bitwright.core.errors import TooManyRequests
from bitwright.jobs import rooms
from bitwright.jobs.create import NewJob
from bitwright.jobs.store import JobStore

REQUEST = {"kind": "inspect", "model": "file:m/x"}


@pytest.mark.parametrize(
    "odd",
    ["\ud800", "a\0b", "é🙂", '"\\', {"n": [None, 1e-300, 0.1, 2**53 + 1, True]}, [], None],
    ids=["half surrogate pair", "NUL", "beyond ASCII", "escapes", "numbers", "empty", "null"],
)
def test_any_json_comes_back_as_it_went_in(store: JobStore, odd: object) -> None:
    request = {**REQUEST, "odd": odd}
    first, second = store.create_many([NewJob(request), NewJob(REQUEST, priority=7, deadline=4e9 + 0.125)])
    assert store.get(first.job.id).request == request
    found = store.get(second.job.id)
    assert (found.priority, found.deadline, found.callback, found.result) == (7, 4e9 + 0.125, None, None)
    assert [event.data for event in store.events_after(first.job.id)] == [{"kind": "inspect", "queue": "cpu"}]


def test_the_limit_holds_to_the_job_however_jobs_come(store: JobStore) -> None:
    answers = [store.create_many([NewJob(REQUEST)] * 2, 9) for _ in range(2)]
    store.create_batch("batch-1", "default", {}, [NewJob(REQUEST, batch_id="batch-1")] * 3, 9)
    answers += [store.create_many([NewJob(REQUEST)], 9) for _ in range(4)]
    refused = [isinstance(answer, TooManyRequests) for group in answers for answer in group]
    assert refused == [False] * 6 + [True] * 2


def test_while_there_is_plenty_jobs_are_not_counted_each_time(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()
    count = rooms._count

    def counting(tx, tenant, limit):
        counted[tenant] += 1
        return count(tx, tenant, limit)

    monkeypatch.setattr(rooms, "_count", counting)
    monkeypatch.setattr(rooms, "FRESH", 3600.0)
    for _ in range(5):
        store.create_many([NewJob(REQUEST, tenant="a"), NewJob(REQUEST, tenant="b")], 10)
    assert counted == {"a": 1, "b": 1}
    store.create_many([NewJob(REQUEST, tenant="a")], 10)
    assert counted == {"a": 2, "b": 1}, "half of the limit is reached"
