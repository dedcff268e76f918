"""Plans, tables, exports and catalogs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwright import face
from bitwright.cli import main
from bitwright.core.npz import read_npz
from bitwright.core.plan import Plan
from bitwright.core.table import SensitivityTable
from bitwright.engines import load_profile, preflight, shipped_profiles
from bitwright.engines.columns import MEDIA, table_columns
from service.openapi_examples import EXAMPLES
from tests.api.running import Running, assert_problem
from tests.dashboard.sample_state import llama_units, plan_of, store_table, table_of
from tests.engines.plans import inventory
from tests.engines.plans import plan_of as given_plan

UNKNOWN = "sha256:" + "f" * 64


@pytest.fixture(scope="module")
def table(api: Running) -> SensitivityTable:
    found = table_of("hf:org/small", llama_units(2), 5)
    store_table(api.blobs, found)
    return found


@pytest.fixture(scope="module")
def plan(api: Running, table: SensitivityTable) -> Plan:
    found = plan_of(table, 4.0)
    api.blobs.put_as("plans", found.digest, found)
    return found


def test_plan_is_served_for_ever_under_its_digest(api: Running, plan: Plan) -> None:
    answer = api.http.get(f"/v1/plans/{plan.digest}")
    assert answer.json() == plan.to_json()
    assert "immutable" in answer.headers["cache-control"]
    again = api.http.get(f"/v1/plans/{plan.digest}", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("digest", [UNKNOWN, "sha256:short", "..%2f..%2fetc", "%00"])
def test_unknown_digests_are_404(api: Running, digest: str) -> None:
    assert_problem(api.http.get(f"/v1/plans/{digest}"), 404, "not-found")
    assert_problem(api.http.get(f"/v1/sensitivities/{digest}"), 404, "not-found")


def test_table_as_json_and_as_file(api: Running, table: SensitivityTable) -> None:
    path = f"/v1/sensitivities/{table.digest}"
    data = api.http.get(path).json()
    assert data["formats"] == list(table.formats)
    assert data["loss"] == table.loss.tolist()
    assert data["cost_bytes"] == table.cost_bytes().tolist()
    assert data["weights"] == table.inventory.weights
    assert [unit["name"] for unit in data["units"]] == [unit.name for unit in table.inventory.units]
    file = api.http.get(path, headers={"Accept": "application/octet-stream"})
    assert (read_npz(io.BytesIO(file.content))["loss"] == table.loss).all()


def test_table_as_columns_holds_what_the_table_holds(api: Running, table: SensitivityTable) -> None:
    answer = api.http.get(f"/v1/sensitivities/{table.digest}", headers={"Accept": MEDIA})
    assert answer.headers["content-type"] == MEDIA
    assert answer.headers["vary"] == "Accept"
    head, arrays = columns(answer.content)
    assert head["names"] == [unit.name for unit in table.inventory.units]
    assert (arrays["loss"].reshape(table.loss.shape) == table.loss).all()
    assert (arrays["stderr"].reshape(table.loss.shape) == table.stderr).all()
    assert (arrays["cost"].reshape(table.loss.shape) == table.cost_bytes()).all()
    shapes = [tuple(head["values"]["shape"][j]) for j in arrays["shape"]]
    assert shapes == [unit.shape for unit in table.inventory.units]
    assert [head["values"]["module"][j] for j in arrays["module"]] == [u.module for u in table.inventory.units]
    assert [None if j < 0 else j for j in arrays["layer"].tolist()] == [unit.layer for unit in table.inventory.units]
    joined = [(a, b) for a in arrays["family:qkv"] for b in arrays["family:qkv"] if a == b >= 0]
    assert len(joined) == 2 * 3 * 3, "two layers of three tied units"
    menus = api.http.get(f"/v1/sensitivities/{table.digest}/engines").json()
    assert head["menus"]["engines"] == menus["engines"]
    assert arrays["class"].tolist() == menus["unit_class"]
    assert {name.removeprefix("tied:"): a.tolist() for name, a in arrays.items() if name.startswith("tied:")} == menus[
        "tied"
    ]
    tag = {"Accept": MEDIA, "If-None-Match": answer.headers["etag"]}
    assert api.http.get(f"/v1/sensitivities/{table.digest}", headers=tag).status_code == 304


def columns(body: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The head and the arrays, read as docs/service.md says."""
    assert body[:4] == b"BWC1"
    length = int.from_bytes(body[4:8], "little")
    head: dict[str, Any] = json.loads(body[8 : 8 + length])
    types = {"float64": "<f8", "int32": "<i4"}
    found = {a["name"]: np.frombuffer(body, types[a["type"]], a["count"], 8 + length + a["at"]) for a in head["arrays"]}
    return head, found


def test_forbidden_and_unknown_cells_stay_so_in_columns() -> None:
    known = table_of("hf:org/holes", llama_units(1), 5)
    loss, stderr = known.loss.copy(), known.stderr.copy()
    loss[0, 1], stderr[2, 3] = np.inf, np.nan
    holes = replace(known, loss=loss, stderr=stderr)
    _, arrays = columns(table_columns(holes, UNKNOWN))
    assert np.isinf(arrays["loss"]).nonzero()[0].tolist() == [1]
    assert arrays["stderr"][2 * len(holes.formats) + 3] == 0


def test_stored_table_can_be_solved_at_any_budget(api: Running, table: SensitivityTable) -> None:
    limit = int(4.5 * table.inventory.weights / 8)
    answer = api.http.post(
        "/v1/solve", json={"table": table.digest, "ties": ["qkv"], "limits": {"bytes": limit}}
    ).json()
    assert answer["certificate"]["cost"]["bytes"] <= limit
    assert len(answer["choice"]) == len(table.inventory.units)


def test_a_table_is_solved_over_what_an_engine_loads(api: Running, table: SensitivityTable) -> None:
    profile = load_profile("gptqmodel")
    limit = int(9 * table.inventory.weights / 8)
    body = {"table": table.digest, "engine": profile.name, "limits": {"bytes": limit}}
    answer = api.http.post("/v1/solve", json=body).json()
    choice = {u.name: table.formats[j] for u, j in zip(table.inventory.units, answer["choice"], strict=True)}
    assert preflight(choice, table.inventory, profile) == []
    free = api.http.post("/v1/solve", json={k: v for k, v in body.items() if k != "engine"}).json()
    assert free["loss"] < answer["loss"]
    frontier = api.http.post("/v1/frontier", json={**body, "points": 5})
    assert frontier.status_code == 200
    assert_problem(api.http.post("/v1/solve", json={**body, "engine": "nothing"}), 422, "unknown-name")
    refused = assert_problem(api.http.post("/v1/solve", json={**body, "engine": "exllamav3"}), 422, "unsupported")
    assert refused["errors"][0]["pointer"] == "/engine"
    inline = {"problem": EXAMPLES["solve"]["problem"], "engine": "mlx"}
    assert_problem(api.http.post("/v1/solve", json=inline), 422, "invalid-input")


@pytest.mark.parametrize("engine", list(shipped_profiles()))
def test_preflight_over_http_is_that_of_the_library(
    api: Running, plan: Plan, table: SensitivityTable, engine: str
) -> None:
    wanted = face.preflight(plan, engine, table=table).to_json()
    stored = api.http.get(f"/v1/plans/{plan.digest}/preflight", params={"engine": engine})
    assert stored.json() == wanted
    params = {"engine": engine, "table": table.digest}
    given = api.http.post("/v1/plans:preflight", params=params, json=plan.to_json())
    assert given.json() == wanted
    alone = api.http.post("/v1/plans:preflight", params={"engine": engine}, json=plan.to_json()).json()
    assert alone["loads"] == wanted["loads"]
    assert alone["reasons"] == wanted["reasons"]


def test_preflight_gives_the_best_plan_that_loads(
    api: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by a solver process; the library, which solves by itself, says the same."""
    model = inventory("mixtral-listed")
    formats = ("int2-sym-g32", "int4-sym-g32", "int8-sym-g32", "bf16")
    weight = np.random.default_rng(0).lognormal(0, 2, (len(model.units), 1))
    loss = weight * np.array([4.0, 1.0, 0.1, 0.0])
    table = SensitivityTable(model, formats, loss, np.zeros_like(loss), "fisher", "nats")
    store_table(api.blobs, table)
    mixed = given_plan(model, ["int4-sym-g32", "int8-sym-g32", "bf16"])
    wanted = face.preflight(mixed, "vllm", table=table).to_json()
    assert not wanted["loads"], "experts of one block in several formats"
    assert wanted["best"]["bytes"] <= mixed.totals.bytes
    params = {"engine": "vllm", "table": table.digest}
    assert api.http.post("/v1/plans:preflight", params=params, json=mixed.to_json()).json() == wanted
    told = mixed.model_copy(update={"provenance": {**mixed.provenance, "table": table.digest}})
    assert api.http.post("/v1/plans:preflight", params={"engine": "vllm"}, json=told.to_json()).json() == wanted
    told.save(tmp_path / "plan.json")
    words = ["preflight", str(tmp_path / "plan.json"), "--engine", "vllm", "--server", api.url]
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == wanted
    assert main(words) == 1
    assert "what loading costs" in capsys.readouterr().out
    assert main([*words, "--model", "x"]) == 2


def test_preflight_of_what_is_not_there_is_told(api: Running, plan: Plan) -> None:
    path, body = "/v1/plans:preflight", plan.to_json()
    assert_problem(api.http.get(f"/v1/plans/{UNKNOWN}/preflight?engine=mlx"), 404, "not-found")
    assert_problem(api.http.get(f"/v1/plans/{plan.digest}/preflight?engine=abacus"), 422, "unknown-name")
    assert_problem(api.http.get(f"/v1/plans/{plan.digest}/preflight"), 422, "invalid-input")
    assert_problem(api.http.post(f"{path}?engine=mlx&device=%3F%3F", json=body), 422, "unknown-name")
    assert_problem(api.http.post(f"{path}?engine=mlx&table={UNKNOWN}", json=body), 404, "not-found")
    assert_problem(api.http.post(f"{path}?engine=mlx", json={}), 422, "invalid-plan")
    old = api.http.post(f"{path}?engine=llama.cpp&device=cpu", json=body)
    assert old.status_code == 200


def test_plan_is_verified_alone_and_against_its_table(api: Running, plan: Plan, table: SensitivityTable) -> None:
    alone = api.http.post("/v1/plans:verify", json={"plan": plan.to_json()}).json()
    assert alone["ok"]
    whole = api.http.post("/v1/plans:verify", json={"plan": plan.to_json(), "table": table.digest}).json()
    assert whole["ok"], whole
    lying: dict[str, Any] = plan.to_json()
    lying["units"][0]["bytes"] -= 8
    assert not api.http.post("/v1/plans:verify", json={"plan": lying}).json()["ok"]
    assert_problem(api.http.post("/v1/plans:verify", json={"plan": plan.to_json(), "table": UNKNOWN}), 404, "not-found")


def test_plan_of_another_model_is_not_the_tables(api: Running, plan: Plan, table: SensitivityTable) -> None:
    document = plan.to_json()
    document["model"]["digest"] = "sha256:" + "0" * 64
    found = api.http.post("/v1/plans:verify", json={"plan": document, "table": table.digest}).json()
    assert not found["ok"]
    assert "model" in found["failures"][-1]


def test_every_export_target_answers_with_text_or_a_reason(api: Running, plan: Plan) -> None:
    targets = [entry["name"] for entry in api.http.get("/v1/engines").json()["exporters"]]
    done = 0
    for target in targets:
        answer = api.http.get(f"/v1/plans/{plan.digest}/export/{target}")
        if answer.status_code == 200:
            assert answer.headers["content-type"].startswith("text/plain")
            assert api.http.post("/v1/plans:export", params={"target": target}, json=plan.to_json()).text == answer.text
            done += 1
        else:
            assert_problem(answer, 422, "unsupported")
    assert done
    assert_problem(api.http.get(f"/v1/plans/{plan.digest}/export/no-such"), 422, "unknown-name")
    assert_problem(api.http.get(f"/v1/plans/{UNKNOWN}/export/mlx"), 404, "not-found")


@pytest.mark.parametrize("name", ["solvers", "metrics", "formats", "recipes", "engines"])
def test_catalogs_list_named_members_and_revalidate(api: Running, name: str) -> None:
    answer = api.http.get(f"/v1/{name}")
    members = answer.json()[name]
    assert members
    assert all(member["name"] for member in members)
    assert api.http.get(f"/v1/{name}", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
