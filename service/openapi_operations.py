"""What each operation takes and answers, beyond the parameters that FastAPI knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitwright.engines.columns import MEDIA as COLUMNS
from service.openapi_examples import EXAMPLES
from service.openapi_schemas import Schema, ref

JSON, EVENTS, PLAIN, NPZ = "application/json", "text/event-stream", "text/plain", "application/octet-stream"
#: Problems that any route with a body can answer.
BODY_PROBLEMS = (413, 415, 422)
#: Of routes that write below the state folder, caches of what they answer among it.
FULL = 507


@dataclass(frozen=True)
class Operation:
    """answers: status -> (words, schema, media type or "" for no body); headers and examples by status.

    others: status -> further media types of the same answer, as Accept asks for them, and their schemas.
    parameters: those that the route reads by itself.
    """

    answers: Mapping[int, tuple[str, Schema, str]]
    problems: tuple[int, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    examples: Mapping[int, Any] = field(default_factory=dict)
    others: Mapping[int, Mapping[str, Schema]] = field(default_factory=dict)
    parameters: tuple[Schema, ...] = ()


def _json_body(name: str, *examples: str) -> dict[str, Any]:
    return {JSON: {"schema": ref(name), "examples": {e: {"value": EXAMPLES[e]} for e in examples}}}


def _ok(name: str, words: str = "OK") -> dict[int, tuple[str, Schema, str]]:
    return {200: (words, ref(name), JSON)}


def _parameter(place: str, name: str, kind: str, words: str) -> Schema:
    return {"in": place, "name": name, "required": False, "description": words, "schema": {"type": kind}}


_UNCHANGED: dict[int, tuple[str, Schema, str]] = {304: ("Unchanged since the If-None-Match version", {}, "")}
_TAG = {"ETag": "version of what is answered"}
_NPZ_BODY = {
    NPZ: {"schema": {"type": "string", "format": "binary", "description": "a problem file (.npz, no pickles)"}}
}
_FILE: Schema = {"type": "string", "format": "binary"}
_JOB_HEADERS = {**_TAG, "Location": "address of the job", "Retry-After": "seconds until a poll is worthwhile"}
_CATALOG = Operation({**_ok("Catalog"), **_UNCHANGED}, headers={200: _TAG})
_STATUS = Operation(_ok("Status"))
_DELETED = Operation({204: ("Deleted", {}, "")}, (404, 413, 415))

OPERATIONS: Mapping[str, Operation] = {
    "createJob": Operation(
        {
            202: ("Accepted: the job is on disk", ref("Job"), JSON),
            200: (
                "The job has ended (Prefer: wait), or the request is valid (validate_only)",
                {"anyOf": [ref("Job"), ref("Validated")]},
                JSON,
            ),
        },
        (409, 429, 503, FULL, *BODY_PROBLEMS),
        _json_body("JobBody", "plan", "inspect"),
        {
            202: {
                **_JOB_HEADERS,
                "Preference-Applied": "the wait that was honoured",
                "Idempotency-Replayed": "true for a known key",
                "Bitwright-Cache": "hit when equal work had been done and its result is given at once",
            }
        },
        {202: EXAMPLES["job"]},
        parameters=(
            _parameter("query", "validate_only", "boolean", "check the request and do nothing"),
            _parameter("header", "Idempotency-Key", "string", "same key and body: same job, for 24 h"),
            _parameter("header", "Prefer", "string", "wait=N: answer 200 with the ended job if it ends in N s"),
        ),
    ),
    "listJobs": Operation(_ok("JobList"), (422, 503)),
    "getJob": Operation(
        {**_ok("Job"), **_UNCHANGED}, (404, 422, 429, 503), headers={200: _TAG}, examples={200: EXAMPLES["job"]}
    ),
    "cancelJob": Operation(
        {202: ("Cancelling: the worker has been told", ref("Job"), JSON), 200: ("The job has ended", ref("Job"), JSON)},
        (404, 412, 413, 415, 503, FULL),
    ),
    "watchJob": Operation(
        {
            200: ("Events until the job has ended", ref("ServerSentEvent"), EVENTS),
            204: ("The job has ended and everything was seen", {}, ""),
        },
        (404, 422, 429, 503),
    ),
    "getResult": Operation(
        {200: ("The result", {"description": "depends on the job's kind"}, JSON), **_UNCHANGED},
        (404, 409, 503),
        headers={200: _TAG},
    ),
    "createBatch": Operation(
        {
            202: ("Accepted: every job is on disk", ref("Batch"), JSON),
            200: ("Every job is valid (validate_only)", ref("ValidatedBatch"), JSON),
        },
        (404, 429, 503, FULL, *BODY_PROBLEMS),
        _json_body("BatchBody", "batch"),
        {202: {"Location": "address of the batch"}},
    ),
    "getBatch": Operation(_ok("Batch"), (404, 503)),
    "listBatchJobs": Operation(_ok("JobList"), (404, 422, 503)),
    "cancelBatch": Operation(_ok("Batch"), (404, 413, 415, 503, FULL)),
    "listWebhooks": Operation(_ok("WebhookList"), (422, 503)),
    "getWebhook": Operation(_ok("Webhook"), (404, 503)),
    "resendWebhook": Operation(_ok("Webhook"), (404, 413, 415, 503, FULL)),
    "webhookSecrets": Operation(_ok("WebhookSecrets"), (413, 415)),
    "storeProblem": Operation(
        {201: ("Stored", ref("StoredProblem"), JSON)}, (404, 409, 503, FULL, *BODY_PROBLEMS), {**_NPZ_BODY}
    ),
    "listProblems": Operation(_ok("StoredProblems")),
    "deleteProblem": _DELETED,
    "storeText": Operation(
        {201: ("Stored", ref("StoredText"), JSON)}, (409, FULL, *BODY_PROBLEMS), {PLAIN: {"schema": {"type": "string"}}}
    ),
    "listTexts": Operation(_ok("StoredTexts")),
    "deleteText": _DELETED,
    "solve": Operation(
        _ok("Solution", "The certified solution; status `infeasible` is an answer"),
        (404, 503, *BODY_PROBLEMS),
        {**_json_body("SolveRequest", "solve"), **_NPZ_BODY},
        examples={200: EXAMPLES["solution"]},
    ),
    "frontier": Operation(
        _ok("Frontier"), (404, 503, *BODY_PROBLEMS), {**_json_body("FrontierRequest", "solve"), **_NPZ_BODY}
    ),
    "verifyPlan": Operation(
        _ok("Verdict", "The verdict; `ok: false` is an answer"),
        (404, 500, *BODY_PROBLEMS),
        _json_body("VerifyRequest", "verify"),
    ),
    "getPlan": Operation({**_ok("Plan"), **_UNCHANGED}, (404,), headers={200: _TAG}),
    "exportPlan": Operation(
        {200: ("The exported text", {"type": "string"}, PLAIN), **_UNCHANGED}, (404, 422), headers={200: _TAG}
    ),
    "preflightPlan": Operation(_ok("Preflight", "The answer; `loads: false` is one"), (404, 422)),
    "preflightGivenPlan": Operation(
        _ok("Preflight", "The answer; `loads: false` is one"), (404, *BODY_PROBLEMS), {JSON: {"schema": ref("Plan")}}
    ),
    "exportGivenPlan": Operation(
        {200: ("The exported text", {"type": "string"}, PLAIN)}, BODY_PROBLEMS, {JSON: {"schema": ref("Plan")}}
    ),
    "getSensitivities": Operation(
        {**_ok("Table"), **_UNCHANGED}, (404, FULL), headers={200: _TAG}, others={200: {NPZ: _FILE, COLUMNS: _FILE}}
    ),
    "getPlanMenus": Operation({**_ok("Menus"), **_UNCHANGED}, (404, 422, FULL), headers={200: _TAG}),
    "getMenus": Operation({**_ok("Menus"), **_UNCHANGED}, (404, FULL), headers={200: _TAG}),
    "listSolvers": _CATALOG,
    "listMetrics": _CATALOG,
    "listFormats": _CATALOG,
    "listRecipes": _CATALOG,
    "listEngines": _CATALOG,
    "getSystem": Operation(_ok("System"), (503,)),
    "listModels": Operation(_ok("Models")),
    "livez": _STATUS,
    "readyz": Operation(_ok("Status"), (503,)),
    "startupz": Operation(_ok("Status"), (503,)),
    "metrics": Operation({200: ("Prometheus text", {"type": "string"}, PLAIN)}, (503,)),
}
