"""One job after another: every way in which work can end gives one typed end."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from bitwright.core import errors
from bitwright.jobs.spans import CONSUMER, open_span
from tests.chaos.sizes import within
from tests.worker.conftest import alive, request_for, wait_until
from worker.sandbox import Child


def error_of(job) -> errors.BitwrightError:
    assert job.state == "failed"
    return errors.from_problem(job.error)


def start_running(store, runner, work: str) -> tuple[str, threading.Thread]:
    """A job that runs in a thread of its own."""
    job_id = store.create(request_for(work)).job.id
    thread = threading.Thread(target=runner.run_next)
    thread.start()
    wait_until(lambda: store.get(job_id).state == "running")
    return job_id, thread


def test_a_job_succeeds_with_its_result_and_progress(make_runner, finish, store):
    job = finish(make_runner(), "answer/yes")
    assert (job.state, job.result, job.tries, job.fraction) == ("succeeded", {"value": "yes"}, 0, 1.0)
    assert [event.type for event in store.events_after(job.id)] == ["queued", "started", "progress", "succeeded"]


def test_no_job_is_no_work(make_runner):
    assert not make_runner().run_next()


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        ("typed", errors.InvalidModel),
        ("untyped", errors.JobFailed),
        ("nan", errors.NotFinite),
    ],
)
def test_errors_of_the_work_end_it_at_once_and_typed(make_runner, finish, work, expected):
    job = finish(make_runner(), work)
    assert type(error_of(job)) is expected
    assert (job.tries, job.attempt) == (0, 1)


@pytest.mark.parametrize(("work", "expected"), [("memory", errors.OutOfResources), ("disk", errors.DiskFull)])
def test_want_of_room_may_pass_and_is_tried_three_times(make_runner, finish, monkeypatch, work, expected):
    monkeypatch.setattr("bitwright.jobs.claim.FIRST_PAUSE", 0.01)
    job = finish(make_runner(), work)
    assert type(error_of(job)) is expected
    assert (job.attempt, job.error["attempts"]) == (3, 3)


def test_a_traceback_is_in_the_log_and_nowhere_else(make_runner, finish, store, settings):
    job = finish(make_runner(), "untyped")
    assert "secret internals" in (settings.state_dir / "logs" / f"{job.id}.log").read_text()
    assert "secret" not in str(job.error)
    assert "secret" not in str([event.to_json() for event in store.events_after(job.id)])


@pytest.mark.parametrize(
    ("work", "words"),
    [("exit/3", "status 3"), ("crash/11", "SIGSEGV"), ("crash/9", "memory limit"), ("exit/0", "no result")],
)
def test_a_child_that_dies_is_tried_three_times(make_runner, finish, monkeypatch, work, words):
    monkeypatch.setattr("bitwright.jobs.claim.FIRST_PAUSE", 0.01)
    job = finish(make_runner(), work)
    error = error_of(job)
    assert isinstance(error, errors.WorkerLost)
    assert words in error.detail
    assert (job.attempt, job.error["attempts"]) == (3, 3)


def test_a_child_that_dies_twice_may_still_succeed(make_runner, finish, monkeypatch):
    monkeypatch.setattr("bitwright.jobs.claim.FIRST_PAUSE", 0.01)
    job = finish(make_runner(), "fail-until/3")
    assert (job.state, job.attempt, job.tries) == ("succeeded", 3, 2)


def test_temporary_trouble_is_tried_again_then_reported(make_runner, finish, monkeypatch):
    monkeypatch.setattr("bitwright.jobs.claim.FIRST_PAUSE", 0.01)
    job = finish(make_runner(), "temporary")
    assert isinstance(error_of(job), errors.Temporary)
    assert job.attempt == 3


def test_work_that_never_ends_is_killed_three_times(make_runner, finish, settings, monkeypatch):
    monkeypatch.setattr("bitwright.jobs.claim.FIRST_PAUSE", 0.01)
    job = finish(make_runner(job_seconds=3.0), "hang")
    assert "in time" in error_of(job).detail
    assert (job.attempt, job.error["attempts"]) == (3, 3)
    assert not alive(int((settings.state_dir / "hanging").read_text()))


def test_work_that_passes_its_deadline_is_killed(make_runner, finish, store):
    with store.database.read() as tx:
        deadline = tx.now + 3.0
    job = finish(make_runner(), "hang", deadline=deadline)
    assert "deadline" in error_of(job).detail


def test_limits_of_the_sandbox_hold_at_the_limit_and_one_beyond(make_runner, finish):
    def ends(work, **limits):
        return finish(make_runner(max_attempts=1, **limits), work)

    size = 1 << 22
    assert ends("big-file", job_file_bytes=size).state == "succeeded"
    assert type(error_of(ends("big-file", job_file_bytes=size - 1))) is errors.DiskFull
    line = (1 << 20) + len('{"result":{"value":""}}')
    assert ends("oversized", job_report_bytes=line).state == "succeeded"
    assert "too large" in error_of(ends("oversized", job_report_bytes=line - 1)).detail
    assert ends("descriptors/64", job_descriptors=64).result == {"value": 64}
    assert error_of(ends("descriptors/65", job_descriptors=64)).status == 500
    step = 1 << 26
    taken = ends("address-space/0").result["value"] + step
    assert ends(f"address-space/{step // 2}", job_memory_bytes=taken).state == "succeeded"
    assert error_of(ends(f"address-space/{step + step // 2}", job_memory_bytes=taken)).status == 500


def test_work_that_eats_memory_is_stopped_at_its_limit_and_the_peak_is_measured(make_runner, finish, monkeypatch):
    monkeypatch.setattr("bitwright.jobs.claim.FIRST_PAUSE", 0.01)
    job = finish(make_runner(job_resident_bytes=200 * 2**20), "grow/600/60")
    assert "more memory" in error_of(job).detail
    assert (job.attempt, job.error["attempts"]) == (3, 3)
    modest = finish(make_runner(job_resident_bytes=200 * 2**20), "grow/60")
    assert modest.state == "succeeded"
    assert modest.measures["peak_memory"] > 60 * 2**20


def test_a_child_has_no_network_unless_its_model_lies_there(make_runner, finish, store):
    assert finish(make_runner(), "connect").result["value"] == ["refused", "refused", "made"]
    job_id = store.create({"kind": "inspect", "model": "hf:do/connect"}).job.id
    assert make_runner().run_next()
    assert store.get(job_id).result["value"] == ["made", "made", "made"]


def test_parts_of_a_job_are_done_by_whoever_is_free_and_the_job_goes_on(make_runner, store, settings):
    runner = make_runner(shards=4)
    job_id = store.create(request_for("spread/4")).job.id
    turns = 0
    while not store.get(job_id).done:
        assert runner.run_next()
        turns += 1
    assert store.get(job_id).result["value"] == ["part 0", "part 1", "part 2", "part 3"]
    assert turns == 1 + 4 + 1
    alone = store.create(request_for("spread/5")).job.id
    assert make_runner().run_next()
    assert len(store.get(alone).result["value"]) == 5, "without other workers the parts are done on the spot"


def test_processor_time_is_limited_a_little_below_and_a_little_above(make_runner, finish):
    """The kernel counts in ticks and the process has still to say its result: what lies within half a second of the
    limit may go either way."""
    for limit, used, state in ((2, "1.3", "succeeded"), (2, "2.5", "failed"), (4, "2.5", "succeeded")):
        job = finish(make_runner(job_cpu_seconds=limit, max_attempts=1), f"burn/{used}")
        assert job.state == state, (limit, used)
        assert state == "succeeded" or isinstance(error_of(job), errors.WorkerLost)


def test_wall_time_is_limited_and_what_passes_it_is_killed_within_five_seconds(make_runner, finish):
    assert finish(make_runner(job_seconds=4.0, max_attempts=1), "sleep/1.5").state == "succeeded"
    job = finish(make_runner(job_seconds=2.0, max_attempts=1), "hang")
    assert "in time" in error_of(job).detail
    assert 2.0 <= job.finished_at - job.started_at <= 2.0 + within(5.0)


class Looked(Child):
    """A child whose memory has been looked at so many times."""

    looks = 0

    def memory(self) -> int:
        self.looks += 1
        return super().memory()


@pytest.mark.parametrize(("beyond", "state"), [(0, "queued"), (1, "failed")])
def test_resident_memory_is_limited_at_the_limit_and_one_byte_beyond(make_runner, store, settings, beyond, state):
    """No process can be told to take an exact number of bytes, so the limit is set by what a sleeping one takes: that
    may go on (and is given back when the worker stops), what takes one byte more than its limit is stopped."""
    store.create(request_for("hang"))
    job = store.claim("a worker")
    span = open_span("attempt", CONSUMER, None)
    with Looked(make_runner()._order(job, span)) as child:
        wait_until((settings.state_dir / "hanging").exists)
        wait_until(lambda: child.memory() == (time.sleep(0.2) or child.memory()))
        runner = make_runner(job_resident_bytes=child.memory() - beyond, max_attempts=1)
        child.looks = 0
        if beyond == 0:
            enough = threading.Thread(target=lambda: (wait_until(lambda: child.looks > 3), runner.stopping.set()))
            enough.start()
        assert runner._watch(job, child)()
    ended = store.get(job.id)
    assert ended.state == state
    assert beyond == 0 or "more memory" in error_of(ended).detail


def test_resident_memory_is_limited_a_little_below_and_a_little_above(make_runner, finish):
    """What a process takes is known to some megabytes only: the limit lies between two amounts 32 MiB apart."""
    bare = finish(make_runner(), "hold/0").result["value"]
    limit = bare + 64 * 2**20
    assert finish(make_runner(job_resident_bytes=limit, max_attempts=1), "hold/48").state == "succeeded"
    job = finish(make_runner(job_resident_bytes=limit, max_attempts=1), "hold/80/60")
    assert "more memory" in error_of(job).detail


def test_progress_of_a_talkative_job_is_thinned_but_ends_complete(make_runner, finish, store):
    job = finish(make_runner(progress_seconds=60.0), "talk/2000")
    told = [event.data for event in store.events_after(job.id) if event.type == "progress"]
    assert len(told) < 10
    assert told[-1]["message"] == "line 1999"


def test_a_cancelled_job_stops_its_child_and_grandchildren(make_runner, store, settings):
    job_id, thread = start_running(store, make_runner(), "grandchild")
    wait_until((settings.state_dir / "hanging").exists)
    pids = [int((settings.state_dir / name).read_text()) for name in ("hanging", "grandchild")]
    store.cancel(job_id)
    thread.join(30)
    assert store.get(job_id).state == "cancelled"
    wait_until(lambda: not any(alive(pid) for pid in pids))


def test_a_stopping_worker_gives_its_job_back_uncounted(make_runner, store, settings):
    runner = make_runner()
    job_id, thread = start_running(store, runner, "hang")
    wait_until((settings.state_dir / "hanging").exists)
    runner.stopping.set()
    thread.join(30)
    job = store.get(job_id)
    assert (job.state, job.tries) == ("queued", 0)
    assert not alive(int((settings.state_dir / "hanging").read_text()))
    assert [event.data.get("reason") for event in store.events_after(job_id)][-1] == "worker-stopping"


def test_a_worker_that_lost_its_lease_kills_the_child_and_writes_nothing(make_runner, store, settings):
    job_id, thread = start_running(store, make_runner(renew_seconds=0.1), "hang")
    wait_until((settings.state_dir / "hanging").exists)
    store.expire_owner(store.get(job_id).owner)
    store.reap(3)
    thread.join(30)
    assert not alive(int((settings.state_dir / "hanging").read_text()))
    job = store.get(job_id)
    assert (job.state, job.tries) == ("queued", 1)


def test_the_lease_is_renewed_while_the_child_works(make_runner, store, settings):
    job_id, thread = start_running(store, make_runner(renew_seconds=0.1), "until/go")
    leases = {store.get(job_id).lease_until}
    wait_until(lambda: leases.add(store.get(job_id).lease_until) or len(leases) > 3)
    (settings.state_dir / "go").touch()
    thread.join(60)
    job = store.get(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert sorted(leases)[-1] - sorted(leases)[0] >= 0.2


def test_scratch_is_private_and_gone_afterwards(make_runner, finish, settings):
    left_behind = Path(finish(make_runner(), "scratch").result["value"])
    assert settings.state_dir in left_behind.parents
    assert not left_behind.exists()
    assert list((settings.state_dir / "tmp").glob("*/*")) == []


def test_a_child_sees_no_secret_of_its_worker(make_runner, finish, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "S3CR3T-hf")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3CR3T-aws")
    monkeypatch.setenv("BITWRIGHT_BROKER_URL", "redis://:S3CR3T@host")
    seen = finish(make_runner(), "environment").result["value"]
    assert "S3CR3T" not in str(seen)
    assert {"PATH", "TMPDIR", "PYTHONPATH"} <= set(seen)


def test_an_end_is_stored_with_patience(make_runner, store, monkeypatch):
    runner = make_runner()
    job = store.create(request_for("answer")).job
    real, failures = store.succeed, [errors.Temporary("locked"), errors.Temporary("locked")]

    def flaky(*arguments):
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(store, "succeed", flaky)
    runner.run_next()
    assert store.get(job.id).state == "succeeded"
    assert failures == []


def test_a_short_failure_of_the_database_does_not_lose_the_lease(make_runner, store, settings, monkeypatch):
    real, failures = store.renew, [errors.Temporary("locked")] * 2

    def flaky(*arguments):
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(store, "renew", flaky)
    job_id, thread = start_running(store, make_runner(renew_seconds=0.2, lease_seconds=30.0), "until/go")
    lease = store.get(job_id).lease_until
    wait_until(lambda: not failures and store.get(job_id).lease_until > lease)
    (settings.state_dir / "go").touch()
    thread.join(60)
    job = store.get(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1)


def test_a_child_that_cannot_be_started_is_a_typed_error(make_runner, finish, settings, monkeypatch):
    monkeypatch.setattr("bitwright.jobs.claim.FIRST_PAUSE", 0.01)
    (settings.state_dir / "logs").write_text("in the way")
    job = finish(make_runner(), "answer")
    assert isinstance(error_of(job), errors.Internal)
