"""The client for programs that run an event loop: `bitwright.client.Client` with `await`.

    async with AsyncClient("http://127.0.0.1:8321") as client:
        result = await client.run({"kind": "plan", "model": "hf:org/name", "budget": "3.5bpw"})

Repeats, idempotency keys and errors are those of `bitwright.client`: both run what `bitwright.client_calls` says.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx

from bitwright import client_calls as calls
from bitwright.client_calls import Asked, Flow, Named, Pause, Progress, client_options, error_of, id_of
from bitwright.core.problem import Problem
from bitwright.core.solution import Solution

T = TypeVar("T")


class AsyncClient:
    """One server, used from one event loop. Close it with `aclose`, or use it in `async with`."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**client_options(base_url, key, timeout), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def submit(self, request: Asked, idempotency_key: str | None = None) -> dict[str, Any]:
        """See `Client.submit`."""
        return await self._do(calls.submit(request, idempotency_key))

    async def submit_batch(
        self,
        models: Sequence[str],
        budgets: Sequence[str],
        job: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """See `Client.submit_batch`."""
        return await self._do(calls.submit_batch(models, budgets, job, idempotency_key))

    async def batch(self, batch: Named) -> dict[str, Any]:
        return await self._do(calls.fetch("GET", f"/v1/batches/{id_of(batch)}"))

    async def job(self, job: Named) -> dict[str, Any]:
        return await self._do(calls.job(job))

    async def cancel(self, job: Named) -> dict[str, Any]:
        return await self._do(calls.fetch("POST", f"/v1/jobs/{id_of(job)}:cancel"))

    async def wait(
        self, job: Named, *, progress: Progress | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """See `Client.wait`."""
        return await self._do(calls.wait(job, progress, timeout))

    async def result(self, job: Named) -> Any:
        """See `Client.result`."""
        return await self._do(calls.result(job))

    async def run(self, request: Asked, *, progress: Progress | None = None, idempotency_key: str | None = None) -> Any:
        """Submit, wait, result. Cancelling the task leaves the job running on the server."""
        return await self._do(calls.run(request, progress, idempotency_key))

    async def events(self, job: Named, *, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """The job's events from `after` to its end, resumed when the connection breaks."""
        path, last = f"/v1/jobs/{id_of(job)}/events", after
        while True:
            try:
                async with self._http.stream("GET", path, headers={"Last-Event-ID": str(last)}) as answer:
                    if answer.status_code == 204:
                        return
                    if answer.status_code != 200:
                        await answer.aread()
                        raise error_of(answer)
                    async for line in answer.aiter_lines():
                        if line.startswith("data: "):
                            event = json.loads(line[6:])
                            last = event.get("id", last)
                            yield event
            except httpx.TransportError:
                await asyncio.sleep(calls.RETRY_SECONDS[0])

    async def solve(
        self, problem: Problem, *, solver: str = "auto", time_limit: float = 10.0, seed: int = 0
    ) -> Solution:
        """See `Client.solve`."""
        content = await asyncio.to_thread(calls.npz_bytes, problem)
        return await self._do(calls.solve(content, solver, time_limit, seed))

    async def upload_text(self, text: str | bytes, name: str = "") -> str:
        """See `Client.upload_text`."""
        return await self._do(calls.upload_text(text, name))

    async def _do(self, flow: Flow[T]) -> T:
        answer: httpx.Response | httpx.TransportError | None = None
        try:
            while True:
                step, answer = flow.send(answer), None
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    continue
                try:
                    answer = await self._http.request(step.method, step.path, **step.options)
                except httpx.TransportError as error:
                    answer = error
        except StopIteration as end:
            found: T = end.value
            return found
