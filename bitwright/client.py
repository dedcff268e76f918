"""A typed client of the HTTP API: problems come back as the exceptions of `bitwright.core.errors`.

    with Client("http://127.0.0.1:8321") as client:
        result = client.run({"kind": "plan", "model": "hf:org/name", "budget": "3.5bpw"})

Requests are repeated when the connection breaks or the server answers 503 or 429; creating a job carries an
idempotency key, so that a repeat never makes a second one.
"""

from __future__ import annotations

import io
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np

from bitwright.core.certificate import Certificate, Verdict
from bitwright.core.errors import BitwrightError, InvalidPlan, InvalidSetting, Temporary, from_problem
from bitwright.core.npz import read_npz
from bitwright.core.plan import Plan, load_plan, plan_from_json
from bitwright.core.problem import Problem
from bitwright.core.problem_file import load_problem, problem_to_arrays, problem_to_json
from bitwright.core.requests import JobRequest
from bitwright.core.solution import Solution, load_solution, solution_from_json
from bitwright.core.table import SensitivityTable, load_table

Progress = Callable[[str, float, str], None]
#: Seconds between repeats: short first, then as long as a server needs to start again.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
#: Seconds of one long poll; below the 29 s at which the strictest gateways cut (research/06 A3).
POLL_SECONDS = 20.0
NPZ = "application/octet-stream"


def silent(stage: str, fraction: float, message: str) -> None:
    """The progress callback of those who do not listen."""


class Client:
    """One server. timeout: seconds without a byte before a request counts as broken. Close it, or use it in `with`."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(**client_options(base_url, key, timeout), transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- jobs -----------------------------------------------------------------------------------------------------

    def submit(self, request: JobRequest | Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """Create a job and give its document. Without a key, one is made up for the repeats of this call."""
        key = json.dumps(idempotency_key or secrets.token_hex(16))
        return self._json("POST", "/v1/jobs", json=job_body(request), headers={"Idempotency-Key": key})

    def submit_batch(
        self,
        models: Sequence[str],
        budgets: Sequence[str],
        job: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Every model with every budget, accepted together; `job`: members that all share."""
        key = json.dumps(idempotency_key or secrets.token_hex(16))
        body = batch_body(models, budgets, job)
        return self._json("POST", "/v1/batches", json=body, headers={"Idempotency-Key": key})

    def batch(self, batch: str | Mapping[str, Any]) -> dict[str, Any]:
        """One state for the whole, and the number of jobs in each state."""
        return self._json("GET", f"/v1/batches/{id_of(batch)}")

    def cancel_batch(self, batch: str | Mapping[str, Any]) -> dict[str, Any]:
        return self._json("POST", f"/v1/batches/{id_of(batch)}:cancel")

    def validate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request with its defaults, as the server understands it; nothing is created."""
        found: dict[str, Any] = self._json("POST", "/v1/jobs?validate_only=true", json=dict(request))["request"]
        return found

    def job(self, job: str | Mapping[str, Any]) -> dict[str, Any]:
        return self._json("GET", f"/v1/jobs/{id_of(job)}")

    def jobs(
        self, *, state: str | None = None, kind: str | None = None, q: str | None = None, page_size: int = 100
    ) -> Iterator[dict[str, Any]]:
        """Every job, newest first, read page by page. q: words that each must hold (model, budget, engine, id ...)."""
        query: dict[str, Any] = {k: v for k, v in (("state", state), ("kind", kind), ("q", q)) if v}
        query["page_size"] = page_size
        while True:
            page = self._json("GET", "/v1/jobs", params=query)
            yield from page["jobs"]
            if not page["next_page_token"]:
                return
            query["page_token"] = page["next_page_token"]

    def cancel(self, job: str | Mapping[str, Any]) -> dict[str, Any]:
        return self._json("POST", f"/v1/jobs/{id_of(job)}:cancel")

    def wait(
        self, job: str | Mapping[str, Any], *, progress: Progress | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """The job once it has ended, however it ended. Raises Temporary when `timeout` seconds pass before that."""
        tell = progress or silent
        end = None if timeout is None else time.monotonic() + timeout
        document = self.job(job)
        while not document["done"]:
            told = document["progress"]
            tell(told["stage"] or document["state"], told["fraction"], told["message"])
            left = POLL_SECONDS if end is None else min(POLL_SECONDS, end - time.monotonic())
            if left <= 0:
                raise Temporary("the job has not ended yet", got=f"{document['state']}, {100 * told['fraction']:.0f} %")
            document = self._changed(document, left)
        if document["state"] == "succeeded":
            tell("done", 1.0, document["state"])
        return document

    def _changed(self, document: dict[str, Any], seconds: float) -> dict[str, Any]:
        headers = {"If-None-Match": f'"{document["version"]}"'}
        answer = self._request("GET", f"/v1/jobs/{document['id']}?wait={seconds:.1f}", headers=headers)
        return document if answer.status_code == 304 else object_of(answer)

    def result(self, job: str | Mapping[str, Any]) -> Any:
        """The result of a job that has succeeded. Raises the job's own error when it failed, ResultNotReady before."""
        document = self.job(job)
        if document.get("error"):
            raise from_problem(document["error"])
        return self._json("GET", f"/v1/jobs/{id_of(job)}/result")

    def run(
        self,
        request: JobRequest | Mapping[str, Any],
        *,
        progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Submit, wait, result. Ctrl-C leaves the job running on the server."""
        return self.result(self.wait(self.submit(request, idempotency_key), progress=progress))

    def events(self, job: str | Mapping[str, Any], *, after: int = 0) -> Iterator[dict[str, Any]]:
        """The job's events from `after` to its end, resumed when the connection breaks."""
        last = after
        while True:
            try:
                with self._http.stream(
                    "GET", f"/v1/jobs/{id_of(job)}/events", headers={"Last-Event-ID": str(last)}
                ) as answer:
                    if answer.status_code == 204:
                        return
                    if answer.status_code != 200:
                        answer.read()
                        raise error_of(answer)
                    for line in answer.iter_lines():
                        if line.startswith("data: "):
                            event = json.loads(line[6:])
                            last = event.get("id", last)
                            yield event
            except httpx.TransportError:
                time.sleep(RETRY_SECONDS[0])
            if self.job(job)["done"] and not self._has_events(job, last):
                return

    def _has_events(self, job: str | Mapping[str, Any], last: int) -> bool:
        with self._http.stream("GET", f"/v1/jobs/{id_of(job)}/events", headers={"Last-Event-ID": str(last)}) as answer:
            return answer.status_code == 200

    # -- at once ----------------------------------------------------------------------------------------------------

    def solve(self, problem: Problem, *, solver: str = "auto", time_limit: float = 10.0, seed: int = 0) -> Solution:
        """The certified solution; `certificate.status` is `infeasible` when nothing fits."""
        query = {"solver": solver, "time_limit": time_limit, "seed": seed}
        data = self._json("POST", "/v1/solve", params=query, content=npz_bytes(problem), headers={"Content-Type": NPZ})
        return solution_from_json(data)

    def frontier(
        self, source: SensitivityTable | Problem | str | Path, *, limit: str | None = None, points: int | None = None
    ) -> dict[str, Any]:
        """Every budget at once, from a table or a problem, or a file of either."""
        problem = _problem(source)
        query = {k: v for k, v in (("limit", limit), ("points", points)) if v is not None}
        return self._json(
            "POST", "/v1/frontier", params=query, content=npz_bytes(problem), headers={"Content-Type": NPZ}
        )

    def verify(self, subject: Plan | Solution | str | Path, problem: Problem | str | Path | None = None) -> Verdict:
        """The server's independent check of a plan or solution."""
        loaded = _subject(Path(subject)) if isinstance(subject, str | Path) else subject
        given = load_problem(problem) if isinstance(problem, str | Path) else problem
        body: dict[str, Any] = {"plan" if isinstance(loaded, Plan) else "solution": loaded.to_json()}
        if given is not None:
            body["problem"] = problem_to_json(given)
        data = self._json("POST", "/v1/plans:verify", json=body)
        return Verdict(
            data["ok"], tuple(data["failures"]), tuple(data["notes"]), Certificate.from_json(data["certificate"])
        )

    # -- documents ----------------------------------------------------------------------------------------------------

    def plan(self, digest: str) -> Plan:
        return plan_from_json(self._json("GET", f"/v1/plans/{quote(digest)}"))

    def export(self, plan: Plan | str, target: str) -> str:
        """A plan, or a stored plan by its digest, in another tool's own syntax."""
        if isinstance(plan, str):
            return self._request("GET", f"/v1/plans/{quote(plan)}/export/{quote(target, safe='')}").text
        return self._request("POST", "/v1/plans:export", params={"target": target}, json=plan.to_json()).text

    def sensitivity(self, digest: str) -> SensitivityTable:
        answer = self._request("GET", f"/v1/sensitivities/{quote(digest)}", headers={"Accept": NPZ})
        with tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
            path = Path(folder) / "table.npz"
            path.write_bytes(answer.content)
            return load_table(path)

    def upload_text(self, text: str | bytes | Path) -> str:
        """Store a calibration or evaluation text; its digest goes into a job's `calibration` or `text`."""
        if isinstance(text, Path):
            if not text.is_file():
                raise InvalidPlan("there is no such text file", got=str(text))
            text = text.read_bytes()
        content = text.encode() if isinstance(text, str) else text
        answer = self._json("POST", "/v1/texts", content=content, headers={"Content-Type": "text/plain; charset=utf-8"})
        return str(answer["digest"])

    def catalog(self, name: str) -> list[dict[str, Any]]:
        """`solvers`, `metrics`, `formats`, `recipes` or `engines`."""
        members: list[dict[str, Any]] = self._json("GET", f"/v1/{quote(name, safe='')}")[name]
        return members

    def export_targets(self) -> list[dict[str, Any]]:
        targets: list[dict[str, Any]] = self._json("GET", "/v1/engines")["exporters"]
        return targets

    # -- transport ----------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return object_of(self._request(method, path, **options))

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, repeated while that may help. Every one of this API is safe to repeat."""
        for pause in (*RETRY_SECONDS, None):
            try:
                answer = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                if pause is None:
                    raise unreachable(self._http.base_url, error) from error
                wait = pause
            else:
                again = pause_of(answer, pause)
                if again is None:
                    break
                wait = again
            time.sleep(wait)
        if answer.is_success or answer.status_code == 304:
            return answer
        raise error_of(answer)


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


def job_body(request: JobRequest | Mapping[str, Any]) -> dict[str, Any]:
    return dict(request) if isinstance(request, Mapping) else request.model_dump(mode="json", exclude_none=True)


def batch_body(models: Sequence[str], budgets: Sequence[str], job: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"models": list(models), "budgets": list(budgets), "job": dict(job or {})}


def pause_of(answer: httpx.Response, pause: float | None) -> float | None:
    """Seconds until this request is worth repeating; None when it is not, or when `pause` says that it was the last."""
    if answer.status_code not in (429, 503) or pause is None:
        return None
    text = answer.headers.get("retry-after", "")
    return min(float(text), 30.0) if text.isdigit() else pause


def unreachable(url: httpx.URL, error: httpx.TransportError) -> Temporary:
    return Temporary(
        f"the server at {url} does not answer",
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


def id_of(job: str | Mapping[str, Any]) -> str:
    return quote(job if isinstance(job, str) else str(job["id"]), safe="")


def npz_bytes(problem: Problem) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **problem_to_arrays(problem))  # type: ignore[arg-type]
    return out.getvalue()


def _problem(source: SensitivityTable | Problem | str | Path) -> Problem:
    if isinstance(source, str | Path):
        path = Path(source)
        is_table = path.suffix == ".npz" and path.is_file() and "meta" in read_npz(path)
        source = load_table(path) if is_table else load_problem(path)
    return source.problem(None) if isinstance(source, SensitivityTable) else source


def _subject(path: Path) -> Plan | Solution:
    try:
        return load_plan(path)
    except InvalidPlan:
        return load_solution(path)


__all__ = ["Client"]
