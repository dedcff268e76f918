"""Steps of a job and the barrier that they meet at, on every database."""

from __future__ import annotations

import threading

import pytest

from bitwright.core.errors import NotFound

STEPS = [{"steps": "a:b", "item": number} for number in range(3)]


def parked(store, steps=STEPS, **options):
    """A job at its barrier, and the first of its steps to be claimed."""
    job_id = store.create({"kind": "inspect", "model": "m"}, **options).job.id
    job = store.claim("w")
    assert store.fan_out(job_id, job.attempt, "score", steps)
    return store.get(job_id)


def types(store, job_id):
    return [event.type for event in store.events_after(job_id)]


def test_a_parked_job_is_running_held_by_nobody_and_shows_its_steps(store):
    job = parked(store)
    assert (job.state, job.owner, job.lease_until, job.parked) == ("running", None, None, True)
    assert job.to_json()["steps"] == {"total": 3, "left": 3}
    assert store.reap(3).lost == 0
    assert types(store, job.id)[-1] == "parked"


def test_the_last_step_puts_the_job_back_into_its_queue_once(store):
    job = parked(store)
    steps = [store.claim("w", ["cpu"]) for _ in STEPS]
    assert {step.request["item"] for step in steps} == {0, 1, 2}
    assert store.claim("w") is None
    for step in steps[:2]:
        assert store.succeed(step.id, step.attempt, {})
        assert not store.succeed(step.id, step.attempt, {}), "a step counts once"
    assert (store.get(job.id).state, store.get(job.id).steps_left) == ("running", 1)
    assert store.succeed(steps[2].id, steps[2].attempt, {})
    again = store.claim("w")
    assert (again.id, again.attempt, again.tries) == (job.id, 2, 0)
    assert types(store, job.id).count("barrier") == 1
    assert store.succeed(job.id, again.attempt, {"x": 1})


def test_steps_take_the_place_of_their_job_and_its_priority(store, clock):
    first = parked(store, priority=1)
    clock.tick(1)
    store.create({"kind": "inspect", "model": "later"})
    assert store.claim("w").parent_id == first.id


def test_a_step_that_fails_for_good_fails_its_job_and_stops_the_others(store, clock):
    job = parked(store)
    failing, running = store.claim("w"), store.claim("w")
    assert store.fail(failing.id, failing.attempt, {"type": "t", "detail": "broken"})
    ended = store.get(job.id)
    assert (ended.state, ended.error["detail"]) == ("failed", "broken")
    assert store.get(running.id).cancelling
    assert store.claim("w") is None
    assert store.confirm_cancel(running.id, running.attempt)
    assert types(store, job.id).count("failed") == 1


def test_a_lost_step_is_tried_again_and_after_three_the_job_fails(store, clock):
    job = parked(store, STEPS[:1])
    for _ in range(3):
        step = store.claim("w", lease_seconds=5)
        assert step.parent_id == job.id
        clock.tick(6)
        assert store.reap(3).lost == 1
    assert store.get(job.id).error["type"].endswith("worker-lost")


def test_a_parked_job_is_cancelled_at_once_with_its_steps(store):
    job = parked(store)
    step = store.claim("w")
    assert store.cancel(job.id).state == "cancelled"
    assert store.get(step.id).cancelling
    assert store.claim("w") is None
    assert not store.succeed(job.id, job.attempt, {})
    assert store.succeed(step.id, step.attempt, {}), "its end is its own"
    assert store.get(job.id).state == "cancelled"


def test_a_deadline_ends_a_parked_job(store, clock):
    job = parked(store, deadline=clock.now + 10)
    clock.tick(11)
    assert store.reap(3).overdue >= 1
    assert store.get(job.id).error["type"].endswith("out-of-resources")


def test_a_cancelled_job_does_not_park(store):
    job_id = store.create({"kind": "inspect", "model": "m"}).job.id
    job = store.claim("w")
    store.cancel(job_id)
    assert store.fan_out(job_id, job.attempt, "score", STEPS)
    assert store.get(job_id).state == "cancelled"
    assert store.claim("w") is None


def test_only_the_attempt_that_holds_the_job_parks_it(store, clock):
    store.create({"kind": "inspect", "model": "m"})
    zombie = store.claim("w", lease_seconds=5)
    clock.tick(6)
    store.reap(3)
    assert not store.fan_out(zombie.id, zombie.attempt, "score", STEPS)
    assert store.claim("w").id == zombie.id


def test_steps_of_an_earlier_round_do_not_count_in_a_later_one(store):
    job = parked(store, STEPS[:1])
    old = store.claim("w")
    assert store.succeed(old.id, old.attempt, {})
    again = store.claim("w")
    assert store.fan_out(job.id, again.attempt, "execute", STEPS[:2])
    assert store.get(job.id).steps_left == 2


def test_steps_are_hidden_from_those_who_ask_for_jobs(store):
    job = parked(store)
    step = store.claim("w")
    assert [found.id for found in store.page(tenant="default")] == [job.id]
    with pytest.raises(NotFound):
        store.get(step.id, "default")
    assert store.statistics().states["queued"] == 0
    assert store.statistics().queued == {"cpu": 2}


def test_steps_that_end_together_let_their_job_pass_once(live_store):
    count = 8
    job = parked(live_store, [{"item": number} for number in range(count)])
    steps = [live_store.claim("w") for _ in range(count)]
    ready = threading.Barrier(count)

    def finish(step):
        ready.wait()
        assert live_store.succeed(step.id, step.attempt, {})

    threads = [threading.Thread(target=finish, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert live_store.get(job.id).state == "queued"
    assert types(live_store, job.id).count("barrier") == 1
