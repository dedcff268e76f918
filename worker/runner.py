"""One slot of a worker: claim a job, run it in a child, keep the lease, write the end. Fenced at every write."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bitwright.core.errors import BitwrightError, Internal, OutOfResources, Temporary, from_problem
from bitwright.jobs.failpoints import CLAIMED_BEFORE_CHILD, DONE_BEFORE_STORED, STORED_BEFORE_NEXT, failpoint
from bitwright.jobs.logs import log_job
from bitwright.jobs.reap import lost_problem
from bitwright.jobs.spans import CONSUMER, Exporter, Span, open_span
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
#: Problems that may pass by themselves: the job is tried again.
PASSING = (Temporary, OutOfResources)
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
    spans: Exporter = field(default_factory=lambda: Exporter(None, "bitwright-worker"))

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
        job = self.store.claim(self.owner, self.queues, self.settings.lease_seconds, self.settings.tenant_active_jobs)
        if job is None:
            return False
        failpoint(CLAIMED_BEFORE_CHILD)
        log_job(job)
        _log.info("job %s (%s) started, attempt %d", job.id, job.kind, job.attempt)
        span = open_span(f"attempt {job.kind}", CONSUMER, job.traceparent, job_id=job.id, attempt=job.attempt)
        verdict = self._run(job, span)
        failpoint(DONE_BEFORE_STORED)
        kept = self._settle(job, verdict)
        failpoint(STORED_BEFORE_NEXT)
        self.spans.end(span, failed=not kept, worker=self.owner)
        _log.info("job %s left" if kept else "job %s lost to another worker", job.id)
        log_job(None)
        return True

    def _run(self, job: Job, span: Span) -> Verdict:
        try:
            with Child(self._order(job, span)) as child:
                return self._watch(job, child)
        except (OSError, BitwrightError) as error:
            _log.exception("the child of job %s could not be run", job.id)
            problem = Internal(
                f"the worker could not run the job ({type(error).__name__})", hint="see the worker's log"
            ).to_problem()
            return self._again(job, problem)

    def _order(self, job: Job, span: Span) -> Order:
        state = self.settings.state_dir
        scratch = scratch_folder(state, self.owner) / f"{job.id}-{job.attempt}"
        return Order(
            job.request,
            self.settings.for_child(),
            self.steps,
            state / "logs" / f"{job.id}.log",
            scratch.absolute(),
            span.traceparent if self.spans.enabled else job.traceparent,
        )

    def _watch(self, job: Job, child: Child) -> Verdict:
        """Listen until there is a verdict. Whatever it is, the child is dead before it is written."""
        lease = Lease(self.store, job, self.settings)
        end, look = time.monotonic() + self._seconds_allowed(job), time.monotonic() + TICK
        limit, resident = self.settings.resident_limit, 0
        mine = (job.id, job.attempt)
        try:
            while not self.stopping.is_set():
                gone = child.exited  # asked first: then all that it said can be read below
                if time.monotonic() >= look:  # it reads about every process of the machine
                    resident, look = child.memory(), time.monotonic() + TICK
                for report in child.reports(0.0 if gone else TICK):
                    verdict = self._hear(job, lease, report, child)
                    if verdict is not None:
                        return verdict
                if gone:
                    return self._again(job, lost_problem(child.exit_reason()))
                if resident > limit:
                    return self._again(job, _over_memory(resident, limit).to_problem())
                if time.monotonic() > end:
                    return self._over_time(job)
                lease.keep()
        except Oversized:
            return partial(self.store.fail, *mine, _oversized(self.settings))
        except CancelRequested:
            return partial(self.store.confirm_cancel, *mine)
        except LeaseLost:
            return lambda: False
        return partial(self.store.release, *mine)

    def _again(self, job: Job, problem: Mapping[str, Any]) -> Verdict:
        return partial(self.store.retry, job.id, job.attempt, problem, self.settings.max_attempts)

    def _over_time(self, job: Job) -> Verdict:
        """Past its deadline a job has failed; past the limit of one attempt it may have been bad luck."""
        if job.deadline is not None and job.started_at is not None:
            left = job.deadline - job.started_at
            if left <= self.settings.job_seconds:
                return partial(self.store.fail, job.id, job.attempt, _past_deadline())
        return self._again(job, _over_time(self.settings).to_problem())

    def _hear(self, job: Job, lease: Lease, report: dict[str, Any], child: Child) -> Verdict | None:
        if "progress" in report:
            lease.tell(*report["progress"])
            return None
        if "span" in report:
            if self.spans.enabled:
                self.spans.put(report["span"])
            return None
        if "peak" in report:
            child.peak_memory = max(child.peak_memory, int(report["peak"]))
            return None
        lease.flush()
        if "result" in report:
            measures = {"peak_memory": child.peak_memory, **gap_of(report["result"])}
            return partial(self.store.succeed, job.id, job.attempt, report["result"], measures)
        if "fanout" in report:
            stage, parts = report["fanout"]
            return partial(self.store.fan_out, job.id, job.attempt, stage, parts)
        if "problem" in report:
            problem = report["problem"]
            if isinstance(from_problem(problem), PASSING):
                return self._again(job, problem)
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


def gap_of(result: Any) -> dict[str, float]:
    """The certificate's gap of a result that has one, for the metrics."""
    certificate = ((result or {}).get("plan") or {}).get("certificate") if isinstance(result, dict) else None
    gap = (certificate or {}).get("gap")
    return {"gap": float(gap)} if isinstance(gap, int | float) else {}


def _past_deadline() -> OutOfResources:
    return OutOfResources("the job did not end before its deadline", hint="set a later deadline or ask for less")


def _over_memory(resident: int, limit: int) -> OutOfResources:
    return OutOfResources(
        "the job took more memory than it may and was stopped",
        expected=f"at most {limit} resident bytes",
        got=f"{resident} resident bytes",
        hint="raise BITWRIGHT_JOB_RESIDENT_BYTES, score fewer tokens, or use a larger machine",
    )


def _over_time(settings: Settings) -> OutOfResources:
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
