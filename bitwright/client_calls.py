"""What the clients ask of a server, without the asking: an operation yields requests and pauses and is sent answers, so
that `bitwright.client` and `bitwright.async_client` say the same and only differ in how they wait.
"""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import numpy as np

from bitwright.core.errors import BitwrightError, InvalidSetting, Temporary, from_problem
from bitwright.core.problem import Problem
from bitwright.core.problem_file import problem_to_arrays
from bitwright.core.requests import JobRequest
from bitwright.core.solution import Solution, solution_from_json

Progress = Callable[[str, float, str], None]
Asked = JobRequest | Mapping[str, Any]
Named = str | Mapping[str, Any]
#: Seconds between repeats: short first, then as long as a server needs to start again.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
#: Seconds of one long poll; below the 29 s at which the strictest gateways cut (research/06 A3).
POLL_SECONDS = 20.0
NPZ = "application/octet-stream"


@dataclass(frozen=True)
class Call:
    """One request. options: those of `httpx.Client.request`."""

    method: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pause:
    seconds: float


T = TypeVar("T")
#: Yields what to do next; is sent the answer to a call, or the error of a connection that broke.
Flow = Generator[Call | Pause, httpx.Response | httpx.TransportError | None, T]


def send(method: str, path: str, **options: Any) -> Flow[httpx.Response]:
    """One request, repeated while that may help. Every one of this API is safe to repeat."""
    for pause in (*RETRY_SECONDS, None):
        answer = yield Call(method, path, options)
        if isinstance(answer, httpx.Response):
            again = pause_of(answer, pause)
            if again is None:
                if answer.is_success or answer.status_code == 304:
                    return answer
                raise error_of(answer)
            yield Pause(again)
        else:
            assert answer is not None
            if pause is None:
                raise unreachable(answer) from answer
            yield Pause(pause)
    raise AssertionError("the last pause is None, after which every way out was taken")


def fetch(method: str, path: str, **options: Any) -> Flow[dict[str, Any]]:
    """The JSON object of an answer."""
    return object_of((yield from send(method, path, **options)))


def submit(request: Asked, key: str | None) -> Flow[dict[str, Any]]:
    body = dict(request) if isinstance(request, Mapping) else request.model_dump(mode="json", exclude_none=True)
    return (yield from fetch("POST", "/v1/jobs", json=body, headers=_keyed(key)))


def submit_batch(
    models: Sequence[str], budgets: Sequence[str], job: Mapping[str, Any] | None, key: str | None
) -> Flow[dict[str, Any]]:
    body = {"models": list(models), "budgets": list(budgets), "job": dict(job or {})}
    return (yield from fetch("POST", "/v1/batches", json=body, headers=_keyed(key)))


def job(named: Named) -> Flow[dict[str, Any]]:
    return (yield from fetch("GET", f"/v1/jobs/{id_of(named)}"))


def wait(named: Named, progress: Progress | None, timeout: float | None) -> Flow[dict[str, Any]]:
    """The job once it has ended. Raises Temporary when `timeout` seconds pass before that."""
    tell = progress or silent
    end = None if timeout is None else time.monotonic() + timeout
    document = yield from job(named)
    while not document["done"]:
        told = document["progress"]
        tell(told["stage"] or document["state"], told["fraction"], told["message"])
        left = POLL_SECONDS if end is None else min(POLL_SECONDS, end - time.monotonic())
        if left <= 0:
            raise Temporary("the job has not ended yet", got=f"{document['state']}, {100 * told['fraction']:.0f} %")
        headers = {"If-None-Match": f'"{document["version"]}"'}
        answer = yield from send("GET", f"/v1/jobs/{id_of(document)}?wait={left:.1f}", headers=headers)
        document = document if answer.status_code == 304 else object_of(answer)
    if document["state"] == "succeeded":
        tell("done", 1.0, document["state"])
    return document


def result(named: Named) -> Flow[Any]:
    """Raises the job's own error when it failed, ResultNotReady before its end."""
    document = yield from job(named)
    if document.get("error"):
        raise from_problem(document["error"])
    return (yield from fetch("GET", f"/v1/jobs/{id_of(named)}/result"))


def run(request: Asked, progress: Progress | None, key: str | None) -> Flow[Any]:
    created = yield from submit(request, key)
    ended = yield from wait(created, progress, None)
    return (yield from result(ended))


def solve(content: bytes, solver: str, time_limit: float, seed: int) -> Flow[Solution]:
    """content: of `npz_bytes`."""
    query = {"solver": solver, "time_limit": time_limit, "seed": seed}
    return solution_from_json(
        (yield from fetch("POST", "/v1/solve", params=query, content=content, headers={"Content-Type": NPZ}))
    )


def upload_text(text: str | bytes, name: str) -> Flow[str]:
    """The digest of a stored text."""
    content = text.encode() if isinstance(text, str) else text
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    return str(
        (yield from fetch("POST", "/v1/texts", params={"name": name}, content=content, headers=headers))["digest"]
    )


def _keyed(key: str | None) -> dict[str, str]:
    """Without a key, one is made up for the repeats of this call."""
    return {"Idempotency-Key": json.dumps(key or secrets.token_hex(16))}


def silent(stage: str, fraction: float, message: str) -> None:
    """The progress callback of those who do not listen."""


def client_options(base_url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """What both clients hand to httpx. Raises InvalidSetting."""
    problem = "the server's address cannot be read"
    if not base_url.startswith(("http://", "https://")):
        raise InvalidSetting(problem, expected="http://host:port", got=repr(base_url)[:80])
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise InvalidSetting(problem, expected="http://host:port", got=str(error)) from error
    headers = {"User-Agent": "bitwright-client", **({"Authorization": f"Bearer {key}"} if key else {})}
    return {"base_url": url, "headers": headers, "timeout": timeout}


def pause_of(answer: httpx.Response, pause: float | None) -> float | None:
    """Seconds until this request is worth repeating; None when it is not, or when `pause` says that it was the last."""
    if answer.status_code not in (429, 503) or pause is None:
        return None
    text = answer.headers.get("retry-after", "")
    return min(float(text), 30.0) if text.isdigit() else pause


def unreachable(error: httpx.TransportError) -> Temporary:
    url = error.request.url
    return Temporary(
        f"the server at {url.scheme}://{url.netloc.decode()} does not answer",
        got=str(error)[:200] or type(error).__name__,
        hint="is `bitwright serve` running there?",
    )


def error_of(answer: httpx.Response) -> BitwrightError:
    """The exception of a problem document; a proxy's page becomes a plain error with its status."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "type" in problem:
        return from_problem(problem)
    return BitwrightError(
        f"the server answered {answer.status_code} without a problem document",
        got=answer.text[:200],
        hint="is this address a bitwright server?",
    )


def object_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        data = answer.json()
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise BitwrightError(
            "the server did not answer with a JSON object", got=answer.text[:200], hint="is this a bitwright server?"
        )
    return data


def id_of(named: Named) -> str:
    return quote(named if isinstance(named, str) else str(named["id"]), safe="")


def npz_bytes(problem: Problem) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **problem_to_arrays(problem))  # type: ignore[arg-type]
    return out.getvalue()
