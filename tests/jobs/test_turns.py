"""Fair sharing between tenants, quotas, batches and webhook rows, on every database."""

from __future__ import annotations

import pytest

from bitwright.core.errors import NotFound, TooManyRequests
from bitwright.jobs.create import NewJob
from bitwright.jobs.deliveries import HOLD_SECONDS, LADDER

REQUEST = {"kind": "inspect", "model": "m"}


def submit(store, tenant, count=1, **options):
    return [store.create(REQUEST, tenant=tenant, **options).job.id for _ in range(count)]


def test_a_busy_tenant_does_not_keep_another_ones_job_waiting(store, clock):
    submit(store, "busy", 20)
    clock.tick(1)
    small = submit(store, "small")
    tenants = [store.claim("w").tenant for _ in range(4)]
    assert tenants == ["busy", "small", "busy", "busy"]
    assert store.get(small[0]).state == "running"


def test_priority_comes_before_fairness(store):
    submit(store, "a", 2)
    submit(store, "b", 3, priority=5)
    assert [store.claim("w").tenant for _ in range(5)] == ["b", "b", "b", "a", "a"]


def test_a_tenant_at_its_limit_waits_and_the_others_do_not(store):
    submit(store, "a", 3)
    submit(store, "b", 1)
    claimed = [store.claim("w", active=2) for _ in range(3)]
    assert sorted(job.tenant for job in claimed) == ["a", "a", "b"]
    assert store.claim("w", active=2) is None
    job = next(job for job in claimed if job.tenant == "a")
    store.succeed(job.id, job.attempt, {})
    assert store.claim("w", active=2).tenant == "a"


def test_waiting_jobs_of_a_tenant_are_limited(store):
    def accept(tenant, count, key=None):
        return store.create_many([NewJob(REQUEST, tenant=tenant, key=key) for _ in range(count)], 3)

    answers = accept("a", 4)
    assert [isinstance(answer, TooManyRequests) for answer in answers] == [False, False, False, True]
    assert not isinstance(accept("b", 1)[0], TooManyRequests)
    assert isinstance(accept("a", 1, "key")[0], TooManyRequests)
    job = store.claim("w")
    while job.tenant != "a":
        job = store.claim("w")
    assert not isinstance(accept("a", 1, "key")[0], TooManyRequests), "a refused request kept its key"


def test_one_call_answers_each_job_by_itself(store):
    other = {"kind": "inspect", "model": "other"}
    known = store.create(REQUEST, key="known").job
    news = [NewJob(REQUEST, key="k"), NewJob(REQUEST, key="k"), NewJob(other, key="k"), NewJob(REQUEST, key="known")]
    news += [NewJob(REQUEST, key="\x00"), NewJob(other)]
    first, second, changed, replay, unusable, plain = store.create_many(news)
    assert first.job.id == second.job.id
    assert (first.replayed, second.replayed) == (False, True)
    assert changed.slug == "idempotency-mismatch"
    assert (replay.job.id, replay.replayed) == (known.id, True)
    assert unusable.slug == "invalid-input"
    assert plain.job.request == other
    assert len(store.page()) == 3


def test_a_batch_is_accepted_whole_or_not_at_all(store):
    news = [NewJob(REQUEST, batch_id="b1") for _ in range(4)]
    with pytest.raises(TooManyRequests):
        store.create_batch("b1", "default", {"x": 1}, news, 3)
    assert store.page() == []
    batch = store.create_batch("b1", "default", {"x": 1}, news, 4)
    assert (batch.total, batch.counts["queued"], batch.done, batch.to_json()["state"]) == (4, 4, False, "queued")
    assert store.create_batch("b1", "default", {"x": 1}, news, 4).total == 4
    assert len(store.page(batch="b1")) == 4, "a repeat makes no second batch"
    with pytest.raises(NotFound):
        store.get_batch("b1", "another")


def test_a_batch_ends_when_its_jobs_have(store):
    store.create_batch("b1", "default", {}, [NewJob(REQUEST, batch_id="b1") for _ in range(3)], 10)
    job = store.claim("w")
    assert store.get_batch("b1", "default").to_json()["state"] == "running"
    store.succeed(job.id, job.attempt, {})
    assert store.cancel_batch("b1", "default").counts["cancelled"] == 2
    document = store.get_batch("b1", "default").to_json()
    assert (document["state"], document["fraction"], document["done"]) == ("cancelled", 1.0, True)


def ended(store, url="https://a.example/hook"):
    store.create(REQUEST, callback=url)
    job = store.claim("w")
    store.succeed(job.id, job.attempt, {})
    return job.id


def test_an_ended_job_leaves_its_webhook_in_the_same_transaction(store):
    job_id = ended(store)
    (found,) = store.deliveries("default", job_id=job_id)
    assert (found.type, found.state, found.tries) == ("job.succeeded", "pending", 0)
    assert found.payload["data"]["job_id"] == job_id
    assert store.deliveries("another") == []


def test_the_ladder_of_retries_ends_after_75_hours(store, clock):
    ended(store)
    start, tries = clock.now, 0
    while True:
        (found,) = store.take_deliveries()
        assert store.take_deliveries() == [], "nobody else sends it meanwhile"
        tries += 1
        after = store.settle_delivery(found, status=500, error="500", retry_after=0, jitter=1.0)
        if after.state != "pending":
            break
        clock.tick(after.due - clock.now - 1)
        assert store.take_deliveries() == []
        clock.tick(1)
    assert (after.state, tries) == ("failed", len(LADDER) + 1)
    assert 75 * 3600 <= clock.now - start < 77 * 3600
    again = store.resend_delivery(found.id, "default")
    assert (again.id, again.state, again.tries) == (found.id, "pending", 0)
    (found,) = store.take_deliveries()
    assert store.settle_delivery(found, status=204, error=None, retry_after=0, jitter=1.0).state == "delivered"


def test_a_sender_that_dies_loses_its_deliveries_to_the_next(store, clock):
    ended(store)
    assert len(store.take_deliveries()) == 1
    clock.tick(HOLD_SECONDS + 1)
    assert len(store.take_deliveries()) == 1


def test_a_receiver_that_asks_for_time_gets_it(store, clock):
    ended(store)
    (found,) = store.take_deliveries()
    after = store.settle_delivery(found, status=503, error="busy", retry_after=100.0, jitter=1.0)
    assert after.due == clock.now + 100


def test_gone_disables_the_address_until_someone_asks_again(store):
    ended(store)
    ended(store)
    found, other = store.take_deliveries()
    assert store.settle_delivery(found, status=410, error="gone", retry_after=0, jitter=1.0).state == "disabled"
    assert store.get_delivery(other.id, "default").state == "disabled"
    later = ended(store)
    assert store.deliveries("default", job_id=later)[0].state == "disabled"
    assert store.take_deliveries() == []
    elsewhere = ended(store, "https://b.example/hook")
    assert store.deliveries("default", job_id=elsewhere)[0].state == "pending"
    store.resend_delivery(found.id, "default")
    assert found.id in [delivery.id for delivery in store.take_deliveries()]
