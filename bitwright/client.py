"""A typed client of the HTTP API: problems come back as the exceptions of `bitwright.core.errors`.

    with Client("http://127.0.0.1:8321") as client:
        result = client.run({"kind": "plan", "model": "hf:org/name", "budget": "3.5bpw"})

Requests are repeated when the connection breaks or the server answers 503 or 429; creating a job carries an
idempotency key, so that a repeat never makes a second one.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from bitwright import client_calls as calls
from bitwright.client_calls import NPZ, Asked, Flow, Named, Pause, Progress, client_options, error_of, id_of, npz_bytes
from bitwright.core.certificate import Verdict
from bitwright.core.claim import Certificate
from bitwright.core.errors import InvalidCalibration, InvalidPlan
from bitwright.core.npz import read_npz
from bitwright.core.plan import Plan, load_plan, plan_from_json
from bitwright.core.problem import Problem
from bitwright.core.problem_file import load_problem, problem_to_json
from bitwright.core.solution import Solution, load_solution
from bitwright.core.table import SensitivityTable, load_table

T = TypeVar("T")


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- jobs -----------------------------------------------------------------------------------------------------

    def submit(self, request: Asked, idempotency_key: str | None = None) -> dict[str, Any]:
        """Create a job and give its document. Without a key, one is made up for the repeats of this call."""
        return self._do(calls.submit(request, idempotency_key))

    def submit_batch(
        self,
        models: Sequence[str],
        budgets: Sequence[str],
        job: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Every model with every budget, accepted together; `job`: members that all share."""
        return self._do(calls.submit_batch(models, budgets, job, idempotency_key))

    def batch(self, batch: Named) -> dict[str, Any]:
        """One state for the whole, and the number of jobs in each state."""
        return self._json("GET", f"/v1/batches/{id_of(batch)}")

    def cancel_batch(self, batch: Named) -> dict[str, Any]:
        return self._json("POST", f"/v1/batches/{id_of(batch)}:cancel")

    def validate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request with its defaults, as the server understands it; nothing is created."""
        found: dict[str, Any] = self._json("POST", "/v1/jobs?validate_only=true", json=dict(request))["request"]
        return found

    def job(self, job: Named) -> dict[str, Any]:
        return self._do(calls.job(job))

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

    def cancel(self, job: Named) -> dict[str, Any]:
        return self._json("POST", f"/v1/jobs/{id_of(job)}:cancel")

    def wait(self, job: Named, *, progress: Progress | None = None, timeout: float | None = None) -> dict[str, Any]:
        """The job once it has ended, however it ended. Raises Temporary when `timeout` seconds pass before that."""
        return self._do(calls.wait(job, progress, timeout))

    def result(self, job: Named) -> Any:
        """The result of a job that has succeeded. Raises the job's own error when it failed, ResultNotReady before."""
        return self._do(calls.result(job))

    def run(
        self,
        request: Asked,
        *,
        progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Submit, wait, result. Ctrl-C leaves the job running on the server."""
        return self._do(calls.run(request, progress, idempotency_key))

    def events(self, job: Named, *, after: int = 0) -> Iterator[dict[str, Any]]:
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
                time.sleep(calls.RETRY_SECONDS[0])
            if self.job(job)["done"] and not self._has_events(job, last):
                return

    def _has_events(self, job: Named, last: int) -> bool:
        with self._http.stream("GET", f"/v1/jobs/{id_of(job)}/events", headers={"Last-Event-ID": str(last)}) as answer:
            return answer.status_code == 200

    # -- at once ----------------------------------------------------------------------------------------------------

    def solve(self, problem: Problem, *, solver: str = "auto", time_limit: float = 10.0, seed: int = 0) -> Solution:
        """The certified solution; `certificate.status` is `infeasible` when nothing fits."""
        return self._do(calls.solve(npz_bytes(problem), solver, time_limit, seed))

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

    def preflight(
        self, plan: Plan, engine: str, *, device: str | None = None, table: str | None = None
    ) -> dict[str, Any]:
        """Whether an engine loads the plan, as JSON. table: digest of the sensitivity table that prices the answer;
        None: the plan's own, where the server has it."""
        asked = {"engine": engine, "device": device, "table": table}
        params = {name: value for name, value in asked.items() if value is not None}
        return self._json("POST", "/v1/plans:preflight", params=params, json=plan.to_json())

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

    def upload_text(self, text: str | bytes | Path, name: str = "") -> str:
        """Store a calibration or evaluation text; its digest goes into a job's `calibration` or `text`."""
        if isinstance(text, Path):
            if not text.is_file():
                raise InvalidCalibration(
                    "there is no such text file", expected="a file of this machine", got=str(text),
                    hint="check the path, or leave it out for the bundled text",
                )  # fmt: skip
            name, text = name or text.name, text.read_bytes()
        return self._do(calls.upload_text(text, name))

    def texts(self) -> list[dict[str, Any]]:
        """This tenant's stored texts: digest, name, bytes and time of each, newest first."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/texts")["texts"]
        return found

    def delete_text(self, digest: str) -> None:
        """Jobs that name it and have not read it yet will fail."""
        self._request("DELETE", f"/v1/texts/{quote(digest, safe='')}")

    def catalog(self, name: str) -> list[dict[str, Any]]:
        """`solvers`, `metrics`, `formats`, `recipes` or `engines`."""
        members: list[dict[str, Any]] = self._json("GET", f"/v1/{quote(name, safe='')}")[name]
        return members

    def export_targets(self) -> list[dict[str, Any]]:
        targets: list[dict[str, Any]] = self._json("GET", "/v1/engines")["exporters"]
        return targets

    # -- transport ----------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return self._do(calls.fetch(method, path, **options))

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._do(calls.send(method, path, **options))

    def _do(self, flow: Flow[T]) -> T:
        answer: httpx.Response | httpx.TransportError | None = None
        try:
            while True:
                step, answer = flow.send(answer), None
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    continue
                try:
                    answer = self._http.request(step.method, step.path, **step.options)
                except httpx.TransportError as error:
                    answer = error
        except StopIteration as end:
            found: T = end.value
            return found


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
