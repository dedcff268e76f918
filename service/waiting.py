"""Waiting for a job without holding a thread or a database connection; ends early when the server stops."""

from __future__ import annotations

import asyncio
import time

from anyio import to_thread

from bitwright.jobs.store import poll_delays
from bitwright.jobs.values import Job
from service.state import State


async def changed(state: State, job_id: str, version: int, seconds: float) -> bool:
    """Whether the job's version differs from `version` within `seconds`. Raises NotFound when the job is gone."""
    for delay in poll_delays(seconds):
        if await to_thread.run_sync(state.store.version_of, job_id) != version:
            return True
        if await _stopped_within(state, delay):
            return False
    return False


async def ended(state: State, job: Job, seconds: float) -> Job:
    """The job once it is done, or as it is after `seconds`."""
    end = time.monotonic() + seconds
    while not job.done and await changed(state, job.id, job.version, end - time.monotonic()):
        job = await to_thread.run_sync(state.store.get, job.id)
    return job


async def _stopped_within(state: State, seconds: float) -> bool:
    try:
        await asyncio.wait_for(state.stopping.wait(), seconds)
    except TimeoutError:
        return False
    return True
