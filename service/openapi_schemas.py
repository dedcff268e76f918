"""Component schemas of the OpenAPI document: request models from pydantic, answers written out."""

from __future__ import annotations

from typing import Any

from bitwright.core.errors import PROBLEM_TYPE_BASE, error_classes
from bitwright.core.plan import Plan
from bitwright.core.requests import ADAPTER
from bitwright.jobs.deliveries import STATES as DELIVERY_STATES
from bitwright.jobs.states import STATES
from service.accepting import Envelope
from service.routes.batches import BatchBody
from service.solve_requests import FrontierRequest, SolveRequest

Schema = dict[str, Any]
REF = "#/components/schemas/{model}"


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    """An object schema; members not named here may be added later (clients ignore what they do not know)."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": sorted(required), **more}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def rows(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
DIGEST: Schema = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
ANY: Schema = {"type": "object"}
_UPLOAD: dict[str, Schema] = {"digest": DIGEST, "name": TEXT, "bytes": COUNT, "created_at": TIME}
NUMBERS: Schema = {"type": "object", "additionalProperties": NUMBER}


def _problem() -> Schema:
    types = [PROBLEM_TYPE_BASE + slug for slug in error_classes()]
    error = record(
        {"message": TEXT},
        {"pointer": {**TEXT, "description": "JSON pointer into the body"}, "parameter": TEXT, "in": TEXT},
    )
    return record(
        {
            "type": {**TEXT, "format": "uri", "enum": types},
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
        },
        {
            "instance": TEXT,
            "expected": TEXT,
            "got": TEXT,
            "hint": {**TEXT, "description": "what to do"},
            "errors": rows(error),
        },
        description="RFC 9457 problem details; every error has this shape. openapi/problems/ describes each type.",
    )


def _job() -> Schema:
    progress = record({"fraction": {**NUMBER, "minimum": 0, "maximum": 1}, "stage": TEXT, "message": TEXT})
    return record(
        {
            "id": TEXT,
            "kind": TEXT,
            "state": {**TEXT, "enum": list(STATES)},
            "done": FLAG,
            "cancelling": FLAG,
            "version": COUNT,
            "attempt": COUNT,
            "queue": TEXT,
            "priority": {"type": "integer"},
            "progress": progress,
            "created_at": TIME,
            "started_at": maybe(TIME),
            "finished_at": maybe(TIME),
            "deadline": maybe(TIME),
            "batch": maybe(TEXT),
            "callback": maybe(TEXT),
            "request": ANY,
            "links": {"type": "object", "additionalProperties": TEXT},
        },
        {
            "result": {"description": "present once succeeded"},
            "error": ref("Problem"),
            "steps": record({"total": COUNT, "left": COUNT}, description="while its parts are done by several workers"),
        },
        description="A long-running operation (AIP-151). Once done, exactly one of result and error is there.",
    )


def _certificate() -> Schema:
    return record(
        {"status": {**TEXT, "enum": ["optimal", "bounded", "infeasible"]}},
        {
            "loss": maybe(NUMBER),
            "lower_bound": maybe(NUMBER),
            "gap": maybe(NUMBER),
            "case_bound": NUMBER,
            "cost": NUMBERS,
            "limits": NUMBERS,
            "multipliers": NUMBERS,
            "proof": TEXT,
            "smallest_limit": NUMBERS,
            "blame": TEXT,
        },
        description="Anyone can recompute it from the problem: DESIGN section 5.",
    )


def _frontier() -> Schema:
    return record(
        {
            "limit": TEXT,
            "breakpoints": COUNT,
            "points": rows(record({"cost": NUMBER, "loss": NUMBER, "gain_per_unit": NUMBER})),
            "uniform": rows(record({"format": COUNT, "name": TEXT, "cost": NUMBER, "loss": NUMBER})),
            "knee": record({"cost": NUMBER, "loss": NUMBER, "rule": TEXT}),
        },
        {"solutions": rows(ref("Solution"))},
    )


def _table() -> Schema:
    unit = record(
        {"name": TEXT, "module": TEXT, "elements": COUNT, "shape": rows(COUNT)},
        {"layer": maybe(COUNT), "expert": maybe(COUNT)},
    )
    cells = rows(rows(maybe(NUMBER)))
    return record(
        {
            "digest": DIGEST,
            "model": ANY,
            "metric": TEXT,
            "loss_unit": TEXT,
            "formats": rows(TEXT),
            "units": rows(unit),
            "loss": cells,
            "stderr": cells,
            "cost_bytes": rows(rows(COUNT)),
            "weights": COUNT,
            "coverage": ANY,
            "provenance": ANY,
        },
        description="null in loss: this unit may not take this format; null in stderr: unknown.",
    )


def _menus() -> Schema:
    engine = record(
        {
            "name": TEXT,
            "title": TEXT,
            "version": TEXT,
            "ties": rows(TEXT),
            "container": maybe(TEXT),
            "export": maybe(TEXT),
            "refusals": rows(rows(maybe(TEXT))),
        }
    )
    return record(
        {
            "digest": DIGEST,
            "formats": rows(TEXT),
            "unit_class": rows(COUNT),
            "classes": rows(record({"example": TEXT, "units": COUNT})),
            "tied": {"type": "object", "additionalProperties": rows(COUNT)},
            "engines": rows(engine),
        },
        description="refusals: for each class and format null where the engine loads it, else why not.",
    )


def _system() -> dict[str, Schema]:
    worker = record(
        {
            "worker": maybe(TEXT),
            "job": {**maybe(TEXT), "description": "null for a job of someone else"},
            "kind": TEXT,
            "stage": TEXT,
            "attempt": COUNT,
            "since": maybe(TIME),
            "lease_seconds_left": {**maybe(NUMBER), "description": "null: parked, nobody holds it"},
        }
    )
    blobs = record({"kind": TEXT, "blobs": COUNT, "bytes": COUNT, "whole": FLAG})
    system = record(
        {
            "version": TEXT,
            "versions": ANY,
            "states": ANY,
            "queues": rows(record({"queue": TEXT, "waiting": COUNT})),
            "oldest_waiting_seconds": NUMBER,
            "expired_leases": COUNT,
            "workers": rows(worker),
            "cache": rows(blobs),
            "limits": ANY,
        }
    )
    models = record({"models": rows(record({"ref": TEXT, "root": TEXT, "bytes": COUNT})), "whole": FLAG})
    return {"System": system, "Models": models}


def _event() -> Schema:
    return record(
        {"id": COUNT, "job_id": TEXT, "at": TIME, "type": TEXT, "data": ANY},
        description="One server-sent event's data.",
    )


def _batch() -> Schema:
    return record(
        {
            "id": TEXT,
            "state": {**TEXT, "enum": list(STATES)},
            "done": FLAG,
            "total": COUNT,
            "counts": {"type": "object", "additionalProperties": COUNT},
            "fraction": {**NUMBER, "minimum": 0, "maximum": 1},
            "created_at": TIME,
            "request": ANY,
            "links": {"type": "object", "additionalProperties": TEXT},
        },
        description="Many jobs followed as one; failed or cancelled once all have ended and any of them has.",
    )


def _webhook() -> Schema:
    return record(
        {
            "id": {**TEXT, "description": "the webhook-id header: the receiver's idempotency key"},
            "job_id": TEXT,
            "url": TEXT,
            "type": TEXT,
            "state": {**TEXT, "enum": list(DELIVERY_STATES)},
            "tries": COUNT,
            "created_at": TIME,
            "next_try_at": maybe(TIME),
            "delivered_at": maybe(TIME),
            "status": maybe({"type": "integer"}),
            "error": maybe(TEXT),
        }
    )


def _sent_event() -> Schema:
    data = {**TEXT, "contentMediaType": "application/json", "contentSchema": ref("JobEvent")}
    return record(
        {},
        {"id": {**TEXT, "description": "goes into Last-Event-ID to resume"}, "event": TEXT, "data": data},
        description="One server-sent event of the stream; its data is the JSON text of a JobEvent.",
    )


def _answers() -> dict[str, Schema]:
    verdict = record({"ok": FLAG, "failures": rows(TEXT), "notes": rows(TEXT), "certificate": ref("Certificate")})
    solution = record(
        {
            "choice": {**rows(COUNT), "description": "format index of each unit; empty when infeasible"},
            "loss": maybe(NUMBER),
            "certificate": ref("Certificate"),
            "solver": TEXT,
        },
        {"info": ANY},
    )
    return {
        "Problem": _problem(),
        "Job": _job(),
        "JobList": record({"jobs": rows(ref("Job")), "next_page_token": TEXT}),
        "Validated": record({"valid": FLAG, "request": ANY}),
        "JobEvent": _event(),
        "ServerSentEvent": _sent_event(),
        "Certificate": _certificate(),
        "Solution": solution,
        "Frontier": _frontier(),
        "Verdict": verdict,
        "Table": _table(),
        "Menus": _menus(),
        "Preflight": _preflight(),
        **_system(),
        "Batch": _batch(),
        "ValidatedBatch": record({"valid": FLAG, "jobs": rows(ANY)}),
        "Webhook": _webhook(),
        "WebhookList": record({"webhooks": rows(ref("Webhook")), "next_page_token": TEXT}),
        "WebhookSecrets": record({"secrets": rows(TEXT)}),
        "StoredProblem": record({**_UPLOAD, "units": COUNT, "formats": COUNT}),
        "StoredProblems": record({"problems": rows(ref("StoredProblem"))}),
        "StoredText": record(_UPLOAD),
        "StoredTexts": record({"texts": rows(ref("StoredText"))}),
        "Status": record({"status": TEXT}),
        "Catalog": {"type": "object", "description": "One list of members, each with name, summary and availability."},
    }


def _preflight() -> Schema:
    change = record({"unit": TEXT, "before": TEXT, "after": TEXT})
    nearest = record({"changed": rows(change), "bytes_delta": {"type": "integer"}, "loss_delta": maybe(NUMBER)})
    best = record({"bytes": COUNT, "predicted_loss": NUMBER, "loss_delta": NUMBER})
    reason = record({"unit": maybe(TEXT), "message": TEXT})
    return record(
        {
            "engine": TEXT, "title": TEXT, "version": TEXT, "revision": TEXT, "loads": FLAG, "reasons": rows(reason),
            "nearest": maybe(nearest), "best": maybe(best), "warnings": rows(TEXT),
        }
    )  # fmt: skip


def _inputs() -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    models = {
        "JobBody": ADAPTER.json_schema(ref_template=REF, mode="validation"),
        "Plan": Plan.model_json_schema(ref_template=REF),
        "BatchBody": BatchBody.model_json_schema(ref_template=REF),
        "SolveRequest": SolveRequest.model_json_schema(ref_template=REF),
        "FrontierRequest": FrontierRequest.model_json_schema(ref_template=REF),
    }
    for name, schema in models.items():
        found.update(schema.pop("$defs", {}))
        found[name] = schema
    for name in [str(branch["$ref"]).rpartition("/")[2] for branch in found["JobBody"]["oneOf"]]:
        found[name]["properties"].update(Envelope.model_json_schema()["properties"])
    found["VerifyRequest"] = record(
        {},
        {"plan": ref("Plan"), "solution": ref("Solution"), "problem": ANY, "table": DIGEST},
        description="Either plan or solution; a solution needs its problem, a plan may have it, or its table.",
    )
    return found


def schemas() -> dict[str, Schema]:
    """Every component schema by name, in alphabetical order."""
    return dict(sorted({**_inputs(), **_answers()}.items()))
