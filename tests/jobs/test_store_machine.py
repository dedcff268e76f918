"""The life of jobs as a state machine: whatever is done in whatever order, the table agrees with a simple model."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from bitwright.core.errors import WorkerLost
from bitwright.jobs import states
from bitwright.jobs.store import open_store
from tests.jobs.conftest import FakeClock

MAX_ATTEMPTS = 3
LEASE = 30.0


@dataclass
class Model:
    """What one job should look like."""

    state: str = states.QUEUED
    attempt: int = 0
    tries: int = 0
    run_after: float = 0.0
    lease_until: float = 0.0
    cancelling: bool = False
    history: list[str] = field(default_factory=lambda: [states.QUEUED])

    def holds(self, attempt: int) -> bool:
        return self.state == states.RUNNING and self.attempt == attempt

    def move(self, state: str) -> None:
        assert states.may_follow(self.state, state)
        self.state = state
        self.history.append(state)

    def spend_try(self, now: float) -> None:
        if self.cancelling:
            self.move(states.CANCELLED)
        elif self.tries + 1 >= MAX_ATTEMPTS:
            self.move(states.FAILED)
        else:
            self.tries += 1
            self.run_after = now + 2.0 ** (self.tries - 1)
            self.move(states.QUEUED)


class JobMachine(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bitwright-machine-"))
        shutil.copy(self.template, self.folder / "jobs.db")
        self.clock = FakeClock()
        self.store = open_store(f"sqlite:///{self.folder / 'jobs.db'}", clock=self.clock)
        self.models: dict[str, Model] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(target=jobs)
    def create(self) -> str:
        job = self.store.create({"kind": "inspect", "model": "m"}).job
        self.models[job.id] = Model(run_after=self.clock.now)
        return job.id

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0]))
    def tick(self, seconds: float) -> None:
        self.clock.tick(seconds)

    @rule()
    def claim(self) -> None:
        job = self.store.claim("w", lease_seconds=LEASE)
        due = [m for m in self.models.values() if m.state == states.QUEUED and m.run_after <= self.clock.now]
        assert (job is None) == (not due)
        if job is not None:
            model = self.models[job.id]
            model.move(states.RUNNING)
            model.attempt += 1
            model.lease_until = self.clock.now + LEASE
            assert job.attempt == model.attempt

    @rule(job=jobs, back=st.integers(0, 2))
    def renew(self, job: str, back: int) -> None:
        model = self.models[job]
        mine = model.holds(model.attempt - back)
        assert (self.store.renew(job, model.attempt - back, LEASE) is not None) == mine
        if mine:
            model.lease_until = self.clock.now + LEASE

    @rule(
        job=jobs, back=st.integers(0, 2), how=st.sampled_from(["succeed", "fail", "release", "retry", "confirm_cancel"])
    )
    def end(self, job: str, back: int, how: str) -> None:
        model = self.models[job]
        attempt = model.attempt - back
        extra = {"succeed": ({},), "fail": ({"type": "t"},), "retry": ({"type": "t"}, MAX_ATTEMPTS)}.get(how, ())
        mine = model.holds(attempt) and (how != "confirm_cancel" or model.cancelling)
        assert getattr(self.store, how)(job, attempt, *extra) == mine
        if not mine:
            return
        if how == "retry":
            model.spend_try(self.clock.now)
        elif how == "release" and not model.cancelling:
            model.run_after = self.clock.now
            model.move(states.QUEUED)
        else:
            model.move({"succeed": states.SUCCEEDED, "fail": states.FAILED}.get(how, states.CANCELLED))

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        model = self.models[job]
        self.store.cancel(job)
        if model.state == states.QUEUED:
            model.move(states.CANCELLED)
        elif model.state == states.RUNNING:
            model.cancelling = True

    @rule()
    def reap(self) -> None:
        lost = [m for m in self.models.values() if m.state == states.RUNNING and m.lease_until < self.clock.now]
        assert self.store.reap(MAX_ATTEMPTS).lost == len(lost)
        for model in lost:
            model.spend_try(self.clock.now)

    @invariant()
    def the_table_agrees(self) -> None:
        for job_id, model in self.models.items():
            job = self.store.get(job_id)
            assert (job.state, job.attempt, job.tries) == (model.state, model.attempt, model.tries)
            assert job.cancelling == (model.cancelling and model.state == states.RUNNING)
            assert (job.finished_at is not None) == job.done
            assert job.done == (model.state in states.TERMINAL)

    @invariant()
    def history_is_in_the_events(self) -> None:
        names = {"queued": "queued", "requeued": "queued", "started": "running"}
        for job_id, model in self.models.items():
            told = [names.get(event.type, event.type) for event in self.store.events_after(job_id)]
            assert [state for state in told if state in states.STATES] == model.history


@pytest.fixture(scope="session", autouse=True)
def _template(migrated_file: Path) -> None:
    JobMachine.template = migrated_file


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)


def test_transitions_are_exactly_those_of_the_drawing():
    allowed = {(a, b) for a in states.STATES for b in states.STATES if a != b and states.may_follow(a, b)}
    from_queued = {("queued", s) for s in ("running", "cancelled", "failed")}
    from_running = {("running", s) for s in ("queued", "succeeded", "failed", "cancelled")}
    assert allowed == from_queued | from_running
    assert not any(states.may_follow(state, state) for state in states.TERMINAL)
    assert WorkerLost.slug == "worker-lost"
