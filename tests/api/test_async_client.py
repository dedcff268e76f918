"""The client with `await`: the same jobs, errors and repeats as the other one."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from bitwright.async_client import AsyncClient
from bitwright.core.errors import InvalidBudget, NotFound, Temporary
from tests.api.running import Running

JOB = {"kind": "inspect", "model": "hf:org/name"}


def test_a_job_is_followed_to_its_end_with_progress(api: Running) -> None:
    told: list[str] = []

    async def follow() -> object:
        async with AsyncClient(api.url) as client:
            job = await client.submit(JOB, "async-1")
            again = await client.submit(JOB, "async-1")
            assert again["id"] == job["id"]
            with pytest.raises(Temporary):
                await client.wait(job, timeout=0.1)
            waiting = asyncio.create_task(client.wait(job, progress=lambda stage, *_: told.append(stage)))
            await asyncio.sleep(0.2)
            claimed = await asyncio.to_thread(api.claim, job["id"])
            await asyncio.to_thread(api.store.succeed, claimed.id, claimed.attempt, {"units": 3})
            assert (await waiting)["state"] == "succeeded"
            events = [event["type"] async for event in client.events(job)]
            assert (events[0], events[-1]) == ("queued", "succeeded")
            return await client.result(job)

    assert asyncio.run(follow()) == {"units": 3}
    assert told[-1] == "done"


def test_batches_and_errors_are_typed(api: Running) -> None:
    async def ask() -> None:
        async with AsyncClient(api.url) as client:
            batch = await client.submit_batch(["hf:org/a"], ["3bpw", "4bpw"], {"kind": "plan"})
            assert (await client.batch(batch))["total"] == 2
            with pytest.raises(InvalidBudget):
                await client.submit({"kind": "plan", "model": "hf:a/b", "budget": "3 parsecs"})
            with pytest.raises(NotFound):
                await client.cancel("none")
            assert (await client.upload_text("some text")).startswith("sha256:")

    asyncio.run(ask())


def test_a_busy_server_is_asked_again(api: Running) -> None:
    answers = iter(
        [httpx.Response(429, headers={"Retry-After": "0"}), httpx.Response(503), httpx.Response(200, json={"done": 1})]
    )

    async def ask() -> dict[str, object]:
        transport = httpx.MockTransport(lambda _: next(answers))
        async with AsyncClient(api.url, transport=transport) as client:
            return await client.job("x")

    assert asyncio.run(ask()) == {"done": 1}
