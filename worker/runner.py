"""One slot of a worker: claim a job, run it in a child, keep the lease, write the end. Fenced at every write."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bitwright.core.errors import BitwrightError, Internal, OutOfResources, Temporary
from bitwright.jobs.reap import lost_problem
from bitwright.jobs.store import JobStore
from bitwright.jobs.values import Job
from bitwright.settings import Settings
from worker.lease import CancelRequested, Lease, LeaseLost
from worker.sandbox import Child, Order, Oversized

#: What a child runs: "module:function", see `worker.child.Work`.
STEPS = "worker.work:run"
#: Longest time that a stop signal waits to be seen while a job runs, in seconds.
TICK = 0.25
#: A stopping worker tries no longer than this to store the end of its job, in seconds.
STOP_PATIENCE = 5.0
#: Writes the end of a job; False when the job is no longer ours.
Verdict = Callable[[], bool]
_log = logging.getLogger("bitwright.worker")


@dataclass(frozen=True)
class Runner:
    """owner: names this worker in the table; queues: None serves all; steps: "module:function" run in the child;
    stopping: set from outside to give the running job back and end; bell: set when there may be work."""

    store: JobStore
    settings: Settings
    owner: str
    stopping: threading.Event
    bell: threading.Event
    queues: Sequence[str] | None = None
    steps: str = STEPS

    def serve(self) -> None:
        """Run jobs until told to stop."""
        while not self.stopping.is_set():
            try:
                worked = self.run_next()
            except BitwrightError as error:
                _log.warning("no job could be claimed: %s", error.detail)
                worked = False
            if not worked and not self.stopping.is_set():
                self.bell.wait(self.settings.poll_seconds)
                self.bell.clear()

    def run_next(self) -> bool:
        """Claim one job and run it to its end; False when there is none."""
        job = self.store.claim(self.owner, self.queues, self.settings.lease_seconds)
        if job is None:
            return False
        _log.info("job %s (%s) started, attempt %d", job.id, job.kind, job.attempt)
        kept = self._settle(job, self._run(job))
        _log.info("job %s left" if kept else "job %s lost to another worker", job.id)
        return True

    def _run(self, job: Job) -> Verdict:
        try:
            with Child(self._order(job)) as child:
                return self._watch(job, child)
        except (OSError, BitwrightError) as error:
            _log.exception("the child of job %s could not be run", job.id)
            problem = Internal(
                f"the worker could not run the job ({type(error).__name__})", hint="see the worker's log"
            ).to_problem()
            return partial(self.store.retry, job.id, job.attempt, problem, self.settings.max_attempts)

    def _order(self, job: Job) -> Order:
        state = self.settings.state_dir
        scratch = scratch_folder(state, self.owner) / f"{job.id}-{job.attempt}"
        return Order(
            job.request,
            self.settings,
            self.steps,
            state / "logs" / f"{job.id}.log",
            scratch.absolute(),
            job.traceparent,
        )

    def _watch(self, job: Job, child: Child) -> Verdict:
        """Listen until there is a verdict. Whatever it is, the child is dead before it is written."""
        lease = Lease(self.store, job, self.settings)
        end = time.monotonic() + self._seconds_allowed(job)
        mine = (job.id, job.attempt)
        try:
            while not self.stopping.is_set():
                gone = child.exited  # asked first: then all that it said can be read below
                for report in child.reports(0.0 if gone else TICK):
                    verdict = self._hear(job, lease, report)
                    if verdict is not None:
                        return verdict
                if gone:
                    return partial(
                        self.store.retry, *mine, lost_problem(child.exit_reason()), self.settings.max_attempts
                    )
                if time.monotonic() > end:
                    return partial(self.store.fail, *mine, _over_time(job, self.settings))
                lease.keep()
        except Oversized:
            return partial(self.store.fail, *mine, _oversized(self.settings))
        except CancelRequested:
            return partial(self.store.confirm_cancel, *mine)
        except LeaseLost:
            return lambda: False
        return partial(self.store.release, *mine)

    def _hear(self, job: Job, lease: Lease, report: dict[str, Any]) -> Verdict | None:
        if "progress" in report:
            lease.tell(*report["progress"])
            return None
        lease.flush()
        if "result" in report:
            return partial(self.store.succeed, job.id, job.attempt, report["result"])
        if "problem" in report:
            problem = report["problem"]
            if problem.get("status") == Temporary.status:
                return partial(self.store.retry, job.id, job.attempt, problem, self.settings.max_attempts)
            return partial(self.store.fail, job.id, job.attempt, problem)
        return None

    def _seconds_allowed(self, job: Job) -> float:
        if job.deadline is None or job.started_at is None:
            return self.settings.job_seconds
        return min(self.settings.job_seconds, job.deadline - job.started_at)

    def _settle(self, job: Job, verdict: Verdict) -> bool:
        """Write the end; a database that fails is asked again for a while, then the reaper will find the job."""
        give_up = time.monotonic() + self.settings.settle_seconds
        while True:
            try:
                return verdict()
            except (Temporary, OutOfResources) as error:
                _log.warning("the end of job %s could not be stored yet: %s", job.id, error.detail)
            if self.stopping.is_set():
                give_up = min(give_up, time.monotonic() + STOP_PATIENCE)
            if time.monotonic() > give_up:
                return False
            time.sleep(TICK)


def scratch_folder(state: Path, owner: str) -> Path:
    """Where the children of that worker keep temporary files; removed when it is known to be dead."""
    return state / "tmp" / owner


def _over_time(job: Job, settings: Settings) -> OutOfResources:
    if job.deadline is not None:
        return OutOfResources("the job did not end before its deadline", hint="set a later deadline or ask for less")
    return OutOfResources(
        "the job did not end in time",
        expected=f"at most {settings.job_seconds:g} s",
        hint="raise BITWRIGHT_JOB_SECONDS or ask for less",
    )


def _oversized(settings: Settings) -> OutOfResources:
    return OutOfResources(
        "the result of the job is too large",
        expected=f"at most {settings.job_report_bytes} bytes",
        hint="raise BITWRIGHT_JOB_REPORT_BYTES",
    )
