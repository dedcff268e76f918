"""The OpenAPI document and problem pages are golden, complete and true; the service stays light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.openapi import rendered
from service.openapi_examples import EXAMPLES
from tests.api.running import Running
from tests.goldens import check_golden

HEAVY = ("torch", "cvxpy", "ortools", "pulp", "celery", "scipy", "transformers", "highspy")


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return rendered()


@pytest.fixture(scope="module")
def document(files: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files["openapi.json"])
    return found


def test_generated_files_are_the_golden_ones(files: dict[str, str], repository: Path) -> None:
    for name, text in files.items():
        check_golden(repository / "openapi" / name, text)
    kept = {
        str(path.relative_to(repository / "openapi")) for path in (repository / "openapi").rglob("*") if path.is_file()
    }
    assert kept == set(files)


def test_every_operation_tells_its_answers_and_problems(document: dict[str, Any]) -> None:
    names = set()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            names.add(operation["operationId"])
            assert operation["summary"], path
            assert any(status < "400" for status in operation["responses"]), path
            assert operation["responses"]["500"] == {"$ref": "#/components/responses/Problem"}
            if method == "post" and path.rpartition(":")[2] not in ("cancel", "resend", "secrets"):
                assert operation["requestBody"]["content"], path
    from service.openapi_operations import OPERATIONS

    assert names == set(OPERATIONS)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                here: Any = document
                for part in value["$ref"].removeprefix("#/").split("/"):
                    here = here[part]
            for member in value.values():
                walk(member)
        elif isinstance(value, list):
            for member in value:
                walk(member)

    walk(document)


def test_server_serves_the_document(api: Running, document: dict[str, Any]) -> None:
    assert api.http.get("/openapi.json").json() == document


@pytest.mark.parametrize(
    ("path", "example"),
    [
        ("/v1/jobs?validate_only=true", "plan"),
        ("/v1/jobs?validate_only=true", "inspect"),
        ("/v1/solve", "solve"),
        ("/v1/frontier", "solve"),
        ("/v1/plans:verify", "verify"),
    ],
)
def test_request_examples_work(api: Running, path: str, example: str) -> None:
    answer = api.http.post(path, json=EXAMPLES[example])
    assert answer.status_code == 200, answer.text
    if example == "verify":
        assert answer.json()["ok"]


def test_service_loads_no_framework_and_no_solver_library() -> None:
    script = f"import service.app, service.server, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_answering_every_catalog_and_route_loads_none_either(tmp_path: Path) -> None:
    script = f"""
import sys, pathlib
from tests.api.running import running_server
with running_server(pathlib.Path({str(tmp_path)!r})) as server:
    for name in ("solvers", "metrics", "formats", "recipes", "engines"):
        assert server.http.get(f"/v1/{{name}}").status_code == 200
    body = {{"kind": "plan", "model": "hf:org/name", "budget": "4bpw", "metric": "fisher", "engine": "vllm"}}
    assert server.http.post("/v1/jobs", json=body).status_code == 202
print([m for m in {HEAVY!r} if m in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "[]", found.stderr
