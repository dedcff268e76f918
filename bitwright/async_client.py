"""The client for programs that run an event loop: `bitwright.client.Client` with `await`.

    async with AsyncClient("http://127.0.0.1:8321") as client:
        result = await client.run({"kind": "plan", "model": "hf:org/name", "budget": "3.5bpw"})

Repeats, idempotency keys and errors are those of `bitwright.client`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any

import httpx

from bitwright.client import (
    NPZ,
    POLL_SECONDS,
    RETRY_SECONDS,
    Progress,
    batch_body,
    client_options,
    error_of,
    id_of,
    job_body,
    npz_bytes,
    object_of,
    pause_of,
    silent,
    unreachable,
)
from bitwright.core.errors import Temporary, from_problem
from bitwright.core.problem import Problem
from bitwright.core.requests import JobRequest
from bitwright.core.solution import Solution, solution_from_json


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

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def submit(
        self, request: JobRequest | Mapping[str, Any], idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Create a job and give its document. Without a key, one is made up for the repeats of this call."""
        key = json.dumps(idempotency_key or secrets.token_hex(16))
        return await self._json("POST", "/v1/jobs", json=job_body(request), headers={"Idempotency-Key": key})

    async def submit_batch(
        self,
        models: list[str],
        budgets: list[str],
        job: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Every model with every budget, accepted together."""
        key = json.dumps(idempotency_key or secrets.token_hex(16))
        body = batch_body(models, budgets, job)
        return await self._json("POST", "/v1/batches", json=body, headers={"Idempotency-Key": key})

    async def batch(self, batch: str | Mapping[str, Any]) -> dict[str, Any]:
        return await self._json("GET", f"/v1/batches/{id_of(batch)}")

    async def job(self, job: str | Mapping[str, Any]) -> dict[str, Any]:
        return await self._json("GET", f"/v1/jobs/{id_of(job)}")

    async def cancel(self, job: str | Mapping[str, Any]) -> dict[str, Any]:
        return await self._json("POST", f"/v1/jobs/{id_of(job)}:cancel")

    async def wait(
        self, job: str | Mapping[str, Any], *, progress: Progress | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """The job once it has ended, however it ended. Raises Temporary when `timeout` seconds pass before that."""
        tell = progress or silent
        end = None if timeout is None else time.monotonic() + timeout
        document = await self.job(job)
        while not document["done"]:
            told = document["progress"]
            tell(told["stage"] or document["state"], told["fraction"], told["message"])
            left = POLL_SECONDS if end is None else min(POLL_SECONDS, end - time.monotonic())
            if left <= 0:
                raise Temporary("the job has not ended yet", got=f"{document['state']}, {100 * told['fraction']:.0f} %")
            headers = {"If-None-Match": f'"{document["version"]}"'}
            answer = await self._request("GET", f"/v1/jobs/{id_of(document)}?wait={left:.1f}", headers=headers)
            document = document if answer.status_code == 304 else object_of(answer)
        if document["state"] == "succeeded":
            tell("done", 1.0, document["state"])
        return document

    async def result(self, job: str | Mapping[str, Any]) -> Any:
        """The result of a job that has succeeded. Raises the job's own error when it failed, ResultNotReady before."""
        document = await self.job(job)
        if document.get("error"):
            raise from_problem(document["error"])
        return await self._json("GET", f"/v1/jobs/{id_of(job)}/result")

    async def run(
        self,
        request: JobRequest | Mapping[str, Any],
        *,
        progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Submit, wait, result. Cancelling the task leaves the job running on the server."""
        return await self.result(await self.wait(await self.submit(request, idempotency_key), progress=progress))

    async def events(self, job: str | Mapping[str, Any], *, after: int = 0) -> AsyncIterator[dict[str, Any]]:
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
                await asyncio.sleep(RETRY_SECONDS[0])

    async def solve(
        self, problem: Problem, *, solver: str = "auto", time_limit: float = 10.0, seed: int = 0
    ) -> Solution:
        """The certified solution; `certificate.status` is `infeasible` when nothing fits."""
        query = {"solver": solver, "time_limit": time_limit, "seed": seed}
        content = await asyncio.to_thread(npz_bytes, problem)
        headers = {"Content-Type": NPZ}
        return solution_from_json(await self._json("POST", "/v1/solve", params=query, content=content, headers=headers))

    async def upload_text(self, text: str | bytes) -> str:
        """Store a calibration or evaluation text; its digest goes into a job's `calibration` or `text`."""
        content = text.encode() if isinstance(text, str) else text
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return str((await self._json("POST", "/v1/texts", content=content, headers=headers))["digest"])

    async def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return object_of(await self._request(method, path, **options))

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, repeated while that may help. Every one of this API is safe to repeat."""
        for pause in (*RETRY_SECONDS, None):
            try:
                answer = await self._http.request(method, path, **options)
            except httpx.TransportError as error:
                if pause is None:
                    raise unreachable(self._http.base_url, error) from error
                wait = pause
            else:
                again = pause_of(answer, pause)
                if again is None:
                    break
                wait = again
            await asyncio.sleep(wait)
        if answer.is_success or answer.status_code == 304:
            return answer
        raise error_of(answer)
