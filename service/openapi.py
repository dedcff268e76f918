"""The OpenAPI document: FastAPI's routes and parameters, with bodies, answers, problems and examples added.

`python -m service.openapi [FOLDER]` writes openapi.json and problems/*.md (default: the folder `openapi`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from bitwright.core.canonical import atomic_write
from service.openapi_operations import OPERATIONS, Operation
from service.openapi_schemas import Schema, ref, schemas
from service.problem_pages import problem_pages

SUMMARY = """Mixed-precision plans under a budget, with a certificate anyone can recompute.

Work is a job (POST /v1/jobs); small problems are solved at once (POST /v1/solve). Every error is an RFC 9457 problem
document. Jobs are read with ETags, `wait`, or server-sent events that resume at `Last-Event-ID`. An
`Idempotency-Key` makes creating a job safe to repeat for 24 hours. An infeasible budget is an answer, not an error."""
METHODS = ("get", "post", "delete")
OPEN = ("livez", "readyz", "startupz")
KEY = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "an API key; needed beyond loopback, and once a key exists",
    }
}


def install_openapi(app: FastAPI) -> None:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def build(app: FastAPI) -> dict[str, Any]:
    """The complete document, keys in a stable order."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        summary="bit allocation with proofs",
        description=SUMMARY,
        routes=app.routes,
    )
    for item in found["paths"].values():
        for method in METHODS:
            if method in item:
                item[method] = _complete(item[method], OPERATIONS[item[method]["operationId"]])
    found["components"] = {"schemas": schemas(), "responses": {"Problem": _problem_response()}, "securitySchemes": KEY}
    found["servers"] = [{"url": "/"}]
    return found


def _complete(operation: dict[str, Any], known: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, (text, schema, media) in known.answers.items():
        others = {other: {"schema": form} for other, form in known.others.get(status, {}).items()}
        content = {media: {"schema": schema}, **others} if media else None
        example = known.examples.get(status)
        if content and example is not None:
            content[media]["examples"] = {"example": {"value": example}}
        responses[str(status)] = {"description": text, **({"content": content} if content else {})}
        if known.headers.get(status):
            responses[str(status)]["headers"] = {
                n: {"description": d, "schema": {"type": "string"}} for n, d in known.headers[status].items()
            }
    guarded = operation["operationId"] not in OPEN
    for status in sorted({*known.problems, 500, *((401, 403) if guarded else ())}):
        responses[str(status)] = {"$ref": "#/components/responses/Problem"}
    done = {key: value for key, value in operation.items() if key not in ("responses", "requestBody")}
    if known.parameters:
        done["parameters"] = [*done.get("parameters", ()), *known.parameters]
    if known.body:
        done["requestBody"] = {"required": True, "content": known.body}
    return {**done, "responses": responses, **({"security": [{"key": []}, {}]} if guarded else {})}


def _problem_response() -> Schema:
    example = {
        "type": "https://bitwright.dev/problems/invalid-budget",
        "title": "The budget is not valid",
        "status": 422,
        "detail": "the unit of the budget is unknown",
        "expected": "a number with a unit, such as 3.5bpw, 4.2GiB, 120MB or 35000000B",
        "got": "'parsecs'",
        "instance": "urn:bitwright:request:5f0c9a1e7d3b4c2a9e8f7a6b",
    }
    content = {"application/problem+json": {"schema": ref("Problem"), "examples": {"example": {"value": example}}}}
    return {"description": "What went wrong and what to do", "content": content}


def rendered() -> dict[str, str]:
    """Every generated file by its path below the folder `openapi`."""
    from bitwright.settings import Settings
    from service.app import create_app

    document = create_app(Settings()).openapi()
    return {
        "openapi.json": json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n",
        **problem_pages(),
    }


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "openapi")
    for name, text in rendered().items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
        print(folder / name)


if __name__ == "__main__":
    main()
