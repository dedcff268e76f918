"""What a job store promises, on every database."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import exc as sql
from sqlalchemy import text

from bitwright.core.errors import IdempotencyMismatch, InvalidInput, NotFound, OutOfResources, from_problem
from bitwright.jobs.store import JobStore
from bitwright.jobs.values import timestamp

REQUEST = {"kind": "inspect", "model": "file:models/a"}
PROBLEM = OutOfResources("no").to_problem()


def running(store: JobStore, **options) -> tuple[str, int]:
    store.create(REQUEST, **options)
    job = store.claim("worker")
    assert job is not None
    return job.id, job.attempt


def event_types(store: JobStore, job_id: str) -> list[str]:
    return [event.type for event in store.events_after(job_id)]


# -- create --------------------------------------------------------------------------------------------------------


def test_a_created_job_is_queued_with_its_event_and_doorbell(store):
    created = store.create(REQUEST, tenant="acme", queue="gpu", priority=7, deadline=2e9)
    job = created.job
    assert (job.state, job.kind, job.tenant, job.queue, job.priority, job.deadline) == (
        "queued",
        "inspect",
        "acme",
        "gpu",
        7,
        2e9,
    )
    assert store.get(job.id) == job
    assert event_types(store, job.id) == ["queued"]
    assert store.statistics().unsent == 1


def test_ids_are_uuid7_and_sort_by_time(store, clock):
    ids = []
    for _ in range(5):
        ids.append(store.create(REQUEST).job.id)
        clock.tick(0.01)
    assert ids == sorted(ids)
    assert {uuid.UUID(name).version for name in ids} == {7}


def test_a_known_key_gives_the_job_as_it_is_now(store):
    first = store.create(REQUEST, key="k")
    store.claim("worker")
    again = store.create(REQUEST, key="k")
    assert again.replayed
    assert (again.job.id, again.job.state) == (first.job.id, "running")
    assert len(store.page()) == 1


def test_a_key_with_another_request_is_refused(store):
    store.create(REQUEST, key="k")
    with pytest.raises(IdempotencyMismatch):
        store.create({**REQUEST, "model": "file:models/b"}, key="k")
    with pytest.raises(IdempotencyMismatch):
        store.create(REQUEST, key="k", priority=3)


def test_keys_belong_to_tenants_and_are_forgotten_after_a_day(store, clock):
    first = store.create(REQUEST, key="k", tenant="a").job.id
    assert store.create(REQUEST, key="k", tenant="b").job.id != first
    clock.tick(24 * 3600 + 1)
    assert store.create(REQUEST, key="k", tenant="a").job.id != first


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0b", "é", "line\nbreak"])
def test_a_key_that_cannot_be_stored_is_refused(store, key):
    with pytest.raises(InvalidInput, match="idempotency key"):
        store.create(REQUEST, key=key)
    assert store.page() == []


def test_equal_finished_work_answers_at_once_as_a_new_job(store):
    job_id, attempt = running(store, work_digest="sha256:1")
    assert not store.create(REQUEST, work_digest="sha256:1").cached
    store.succeed(job_id, attempt, {"plan": 1})
    created = store.create(REQUEST, work_digest="sha256:1")
    assert created.cached
    assert created.job.id != job_id
    assert (created.job.state, created.job.result, created.job.done) == ("succeeded", {"plan": 1}, True)
    assert event_types(store, created.job.id) == ["queued", "succeeded"]
    assert not store.create(REQUEST, work_digest="sha256:1", tenant="other").cached


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "é✓", {"deep": [1, 2.5, None, True]}])
def test_requests_and_results_of_any_json_survive(store, value):
    job_id, attempt = running(store)
    store.succeed(job_id, attempt, {"value": value})
    assert store.get(job_id).result == {"value": value}
    other = store.create({"kind": "inspect", "model": value}).job
    assert store.get(other.id).request["model"] == value


# -- claim ---------------------------------------------------------------------------------------------------------


def test_claim_takes_priority_first_then_age(store, clock):
    names = {}
    for name, priority in (("old", 0), ("young", 0), ("urgent", 5)):
        names[store.create(REQUEST, priority=priority).job.id] = name
        clock.tick(1)
    assert [names[store.claim("w").id] for _ in range(3)] == ["urgent", "old", "young"]
    assert store.claim("w") is None


def test_claim_serves_its_queues_only(store):
    store.create(REQUEST, queue="gpu")
    assert store.claim("w", ["cpu", "solve"]) is None
    assert store.claim("w", ["gpu"]).queue == "gpu"


def test_claim_waits_for_run_after_and_skips_passed_deadlines(store, clock):
    store.create(REQUEST, run_after=clock.now + 10)
    store.create(REQUEST, deadline=clock.now + 5)
    clock.tick(6)
    assert store.claim("w") is None
    clock.tick(5)
    assert store.claim("w") is not None


def test_each_claim_gives_a_new_fencing_token(store, clock):
    job_id, first = running(store)
    store.release(job_id, first)
    second = store.claim("other").attempt
    assert second == first + 1


# -- the fence -----------------------------------------------------------------------------------------------------


def test_every_stale_write_is_rejected(store, clock):
    job_id, stale = running(store)
    clock.tick(31)
    store.reap(3)
    clock.tick(2)
    fresh = store.claim("other").attempt
    before = store.get(job_id)
    assert store.renew(job_id, stale) is None
    assert not store.progress(job_id, stale, "s", 0.5, "m")
    assert not store.succeed(job_id, stale, {"stale": True})
    assert not store.fail(job_id, stale, PROBLEM)
    assert not store.retry(job_id, stale, PROBLEM, 3)
    assert not store.release(job_id, stale)
    assert not store.confirm_cancel(job_id, stale)
    assert store.get(job_id) == before
    assert store.succeed(job_id, fresh, {"fresh": True})
    assert store.get(job_id).result == {"fresh": True}


def test_a_lease_that_ran_out_but_was_not_taken_back_may_still_finish(store, clock):
    job_id, attempt = running(store)
    clock.tick(100)
    assert store.succeed(job_id, attempt, {})


def test_renewing_keeps_the_reaper_away(store, clock):
    job_id, attempt = running(store)
    for _ in range(5):
        clock.tick(10)
        assert store.renew(job_id, attempt).lease_until == clock.now + 30
        assert store.reap(3).lost == 0


# -- ends ----------------------------------------------------------------------------------------------------------


def test_success_has_a_result_and_failure_an_error(store):
    job_id, attempt = running(store)
    assert store.succeed(job_id, attempt, {"x": 1})
    document = store.get(job_id).to_json()
    assert (document["state"], document["done"], document["result"]) == ("succeeded", True, {"x": 1})
    assert "error" not in document
    job_id, attempt = running(store)
    assert store.fail(job_id, attempt, OutOfResources("disk full"))
    document = store.get(job_id).to_json()
    assert isinstance(from_problem(document["error"]), OutOfResources)
    assert "result" not in document


def test_nothing_changes_an_ended_job(store):
    job_id, attempt = running(store)
    store.succeed(job_id, attempt, {"x": 1})
    before = store.get(job_id)
    assert not store.succeed(job_id, attempt, {"x": 2})
    assert not store.fail(job_id, attempt, PROBLEM)
    assert not store.progress(job_id, attempt, "s", 0.1, "m")
    assert store.cancel(job_id) == before
    assert event_types(store, job_id) == ["queued", "started", "succeeded"]


@pytest.mark.parametrize("change", ["state = 'queued'", "result = NULL", "version = version + 1"])
def test_the_database_itself_refuses_to_change_an_ended_job(store, change):
    job_id, attempt = running(store)
    store.succeed(job_id, attempt, {"x": 1})
    with pytest.raises(sql.DBAPIError, match="never changes"), store.database.write() as tx:
        tx.connection.execute(text(f"UPDATE jobs SET {change} WHERE id = :id"), {"id": job_id})


def test_the_database_itself_refuses_unknown_states_and_older_tokens(store):
    job_id, _ = running(store)
    for change in ("state = 'paused'", "attempt = 0"):
        with pytest.raises(sql.DBAPIError), store.database.write() as tx:
            tx.connection.execute(text(f"UPDATE jobs SET {change} WHERE id = :id"), {"id": job_id})


def test_progress_is_stored_as_printable_text(store):
    job_id, attempt = running(store)
    assert store.progress(job_id, attempt, "sc\0re", 1.7, "a\nb\ud800" + "x" * 900)
    job = store.get(job_id)
    assert (job.stage, job.fraction) == ("sc re", 1.0)
    assert job.message.startswith("a b")
    assert len(job.message) == 500
    assert store.events_after(job_id)[-1].type == "progress"


# -- tries ---------------------------------------------------------------------------------------------------------


def test_three_lost_leases_end_the_job_as_worker_lost(store, clock):
    job_id = store.create(REQUEST).job.id
    for number in (1, 2, 3):
        assert store.claim("w") is not None
        clock.tick(31)
        assert store.reap(3).lost == 1
        assert store.get(job_id).tries == min(number, 2)
        clock.tick(10)
    job = store.get(job_id)
    assert job.state == "failed"
    assert job.error["type"].endswith("worker-lost")
    assert job.error["attempts"] == 3


def test_a_retry_waits_longer_each_time(store, clock):
    job_id, attempt = running(store)
    assert store.retry(job_id, attempt, PROBLEM, 3)
    assert store.claim("w") is None
    clock.tick(1.1)
    attempt = store.claim("w").attempt
    assert store.retry(job_id, attempt, PROBLEM, 3)
    clock.tick(1.1)
    assert store.claim("w") is None
    clock.tick(1)
    assert store.claim("w") is not None


def test_a_stopping_worker_costs_no_try(store):
    job_id, attempt = running(store)
    for _ in range(10):
        assert store.release(job_id, attempt)
        attempt = store.claim("w").attempt
    assert store.get(job_id).tries == 0


def test_a_dead_owner_loses_its_leases_at_once(store, clock):
    mine, _ = running(store)
    store.create(REQUEST)
    other = store.claim("other").id
    assert store.expire_owner("worker") == 1
    assert store.reap(3).lost == 1
    assert (store.get(mine).state, store.get(other).state) == ("queued", "running")


def test_a_deadline_that_passes_in_the_queue_fails_the_job(store, clock):
    job_id = store.create(REQUEST, deadline=clock.now + 5).job.id
    assert store.reap(3).overdue == 0
    clock.tick(6)
    assert store.reap(3).overdue == 1
    assert isinstance(from_problem(store.get(job_id).error), OutOfResources)


def test_messages_are_published_once_when_due(store, clock):
    job_id, attempt = running(store)
    rung = []
    assert store.publish_due(rung.append) == 1
    assert store.publish_due(rung.append) == 0
    store.retry(job_id, attempt, PROBLEM, 3)
    assert store.publish_due(rung.append) == 0
    clock.tick(1.1)
    assert store.publish_due(rung.append) == 1
    assert [(message.queue, message.job_id) for message in rung] == [("cpu", job_id)] * 2


def test_a_clock_that_is_set_back_keeps_no_accepted_job_waiting(store, clock):
    """Once a job accepted an hour 'later' was due in an hour, was not rung for, and no lost ring was noticed."""
    job_id = store.create(REQUEST, callback="https://hooks.example.com/x").job.id
    clock.tick(-3600)
    rung = []
    assert store.publish_due(rung.append) == 1
    assert store.waiting_longer_than(5) == {"cpu": 1}
    job = store.claim("w", lease_seconds=30)
    assert job.id == job_id
    store.succeed(job.id, job.attempt, {})
    clock.tick(-3600)
    assert [found.job_id for found in store.take_deliveries()] == [job_id]


def test_messages_that_the_broker_refuses_stay(store):
    store.create(REQUEST)

    def refuse(_):
        raise ConnectionError("no broker")

    with pytest.raises(ConnectionError):
        store.publish_due(refuse)
    assert store.publish_due(lambda _: None) == 1


def test_waiting_jobs_are_counted_by_queue(store, clock):
    store.create(REQUEST, queue="gpu")
    store.create(REQUEST, run_after=clock.now + 100)
    assert store.waiting_longer_than(5) == {}
    clock.tick(6)
    assert store.waiting_longer_than(5) == {"gpu": 1}


def test_old_messages_and_keys_are_forgotten(store, clock):
    first = store.create(REQUEST, key="k").job.id
    clock.tick(100)
    store.forget_messages(50)
    assert store.statistics().unsent == 0
    assert store.create(REQUEST, key="k").job.id != first


# -- cancel --------------------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(store):
    job_id = store.create(REQUEST).job.id
    assert store.cancel(job_id).state == "cancelled"
    assert store.claim("w") is None
    assert store.cancel(job_id).state == "cancelled"


def test_a_running_job_is_cancelled_when_its_worker_confirms(store):
    job_id, attempt = running(store)
    assert not store.confirm_cancel(job_id, attempt)
    assert store.cancel(job_id).cancelling
    assert store.cancel(job_id).version == store.get(job_id).version
    assert store.confirm_cancel(job_id, attempt)
    assert store.get(job_id).state == "cancelled"
    assert event_types(store, job_id) == ["queued", "started", "cancel-requested", "cancelled"]


@pytest.mark.parametrize("how", ["reap", "release", "retry"])
def test_a_cancelled_job_is_never_queued_again(store, clock, how):
    job_id, attempt = running(store)
    store.cancel(job_id)
    clock.tick(31)
    {
        "reap": lambda: store.reap(3),
        "release": lambda: store.release(job_id, attempt),
        "retry": lambda: store.retry(job_id, attempt, PROBLEM, 3),
    }[how]()
    assert store.get(job_id).state == "cancelled"


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_id", ["nothing", "", "a\0b", "\ud800", "x" * 5000])
def test_an_unknown_job_is_not_found(store, job_id):
    for ask in (store.get, store.version_of, store.cancel):
        with pytest.raises(NotFound):
            ask(job_id)


def test_a_job_of_another_tenant_is_not_found(store):
    job_id = store.create(REQUEST, tenant="a").job.id
    assert store.get(job_id, "a").id == job_id
    with pytest.raises(NotFound):
        store.get(job_id, "b")
    with pytest.raises(NotFound):
        store.cancel(job_id, "b")
    assert store.get(job_id).state == "queued"


def test_pages_are_newest_first_and_neither_skip_nor_repeat(store, clock):
    made = []
    for number in range(23):
        made.append(store.create(REQUEST).job.id)
        if number % 3:
            clock.tick(1)
    seen, after = [], None
    while batch := store.page(limit=5, after=after):
        seen += [job.id for job in batch]
        after = (batch[-1].created_at, batch[-1].id)
        store.create(REQUEST)
        clock.tick(1)
    assert sorted(seen) == sorted(made)
    assert len(seen) == len(set(seen))


def test_pages_filter_by_tenant_state_and_kind(store):
    store.create(REQUEST, tenant="a")
    store.create({**REQUEST, "kind": "plan"}, tenant="b")
    store.claim("w")
    assert {job.tenant for job in store.page(tenant="b")} == {"b"}
    assert len(store.page(states=["running"])) == 1
    assert [job.kind for job in store.page(kinds=["plan"])] == ["plan"]
    assert store.page(states=["failed", "cancelled"]) == []


def test_a_search_is_bounded_and_goes_on_where_it_stopped(store):
    requests = [{"kind": "plan", "model": f"hf:org/M{i % 3}", "budget": "3bpw", "plan": {"m0": 1}} for i in range(9)]
    jobs = [store.create(request).job for request in requests]
    wanted = [job.id for job in reversed(jobs) if job.request["model"] == "hf:org/M0"]
    found, after = [], None
    for _ in range(9):
        page, after = store.search(["m0", "3BPW"], limit=2, most=4, after=after)
        assert len(page) <= 2
        found += [job.id for job in page]
        if after is None:
            break
    assert found == wanted
    assert store.search(["m0"], limit=10, most=9) == (store.page()[2::3], None)
    assert store.search(["m7"], limit=10, most=100) == ([], None)


def test_events_replay_from_any_point(store):
    job_id, attempt = running(store)
    for number in range(10):
        store.progress(job_id, attempt, "s", number / 10, str(number))
    everything = store.events_after(job_id)
    ids = [event.id for event in everything]
    assert ids == sorted(ids)
    for cut in range(len(everything)):
        assert store.events_after(job_id, ids[cut]) == everything[cut + 1 :]
    assert store.events_after(job_id, 2**80) == []
    assert store.events_after(job_id, -5, limit=2) == everything[:2]


def test_each_change_counts_the_version_up(store):
    job_id, attempt = running(store)
    versions = [store.version_of(job_id)]
    for action in (
        lambda: store.renew(job_id, attempt),
        lambda: store.progress(job_id, attempt, "s", 0, "m"),
        lambda: store.cancel(job_id),
    ):
        action()
        versions.append(store.version_of(job_id))
    assert versions == list(range(versions[0], versions[0] + 4))


def test_statistics_count_what_is_there(store, clock):
    running(store)
    store.create(REQUEST, queue="gpu")
    clock.tick(31)
    found = store.statistics()
    assert (found.states["running"], found.states["queued"], found.states["failed"]) == (1, 1, 0)
    assert found.queued == {"gpu": 1}
    assert found.oldest_queued_seconds == pytest.approx(31)
    assert (found.expired_leases, found.unsent) == (1, 2)


def test_garbage_is_what_ended_long_ago(store, clock):
    old, attempt = running(store, key="k")
    store.succeed(old, attempt, {})
    waiting = store.create(REQUEST).job.id
    clock.tick(1000)
    assert store.collect_garbage(2000) == 0
    assert store.collect_garbage(500) == 1
    with pytest.raises(NotFound):
        store.get(old)
    assert store.events_after(old) == []
    assert store.get(waiting).state == "queued"


def test_waiting_returns_at_once_when_the_version_differs(store):
    job = store.create(REQUEST).job
    assert store.wait_for_change(job.id, job.version - 1, 60).version == job.version
    assert store.wait_for_change(job.id, job.version, 0.01).version == job.version


def test_times_are_written_as_rfc3339():
    assert timestamp(0.0015) == "1970-01-01T00:00:00.001Z"
    assert timestamp(None) is None
