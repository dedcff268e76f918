"""What operators and the dashboard ask: workers and leases, models below the roots, what engines load of a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from bitwright.core.plan import Plan
from bitwright.core.table import SensitivityTable
from bitwright.engines import load_profile, preflight, shipped_profiles
from bitwright.engines.menus import menus_document
from bitwright.models.planned import inventory_of
from service.keys import KeyFile
from service.menus import plan_menus
from service.models import models_document
from service.system import cache_sizes
from tests.api.running import Running, assert_problem, running_server
from tests.dashboard.sample_state import llama_units, moe_units, plan_of, store_table, table_of


@pytest.fixture(scope="module")
def tables() -> list[SensitivityTable]:
    return [table_of("hf:org/dense", llama_units(3), 1), table_of("hf:org/moe", moe_units(2, 4), 2)]


def test_workers_are_told_with_their_leases_and_only_ones_own_jobs(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    first, _ = keys.create("first", tenant="a")
    other, _ = keys.create("other", tenant="b")
    reader, _ = keys.create("reader", ["jobs:read"])
    with running_server(tmp_path) as server:
        mine = {"Authorization": f"Bearer {first}"}
        answer = server.http.post("/v1/jobs", json={"kind": "inspect", "model": "hf:org/name"}, headers=mine)
        job = server.claim(answer.json()["id"])
        row = server.http.get("/v1/system", headers=mine).json()["workers"][0]
        assert row["worker"] == "test-worker"
        assert row["job"] == job.id
        assert 0 < row["lease_seconds_left"] <= 600
        foreign = server.http.get("/v1/system", headers={"Authorization": f"Bearer {other}"}).json()["workers"][0]
        assert foreign["job"] is None
        refused = server.http.get("/v1/system", headers={"Authorization": f"Bearer {reader}"})
        assert_problem(refused, 403, "forbidden")
        started = [event for event in server.store.events_after(job.id) if event.type == "started"]
        assert started[0].data == {"attempt": 1, "worker": "test-worker"}


def test_cache_is_counted_by_kind(tmp_path: Path) -> None:
    assert cache_sizes(tmp_path / "nothing") == []
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "a").write_bytes(b"12345")
    (tmp_path / "plans" / "folder").mkdir()
    (tmp_path / "plans" / "folder" / "b").write_bytes(b"123")
    assert cache_sizes(tmp_path) == [{"kind": "plans", "blobs": 2, "bytes": 8, "whole": True}]


def test_models_below_the_roots_are_listed_as_references(tmp_path: Path) -> None:
    for name in ("a/model", "b", ".hidden", "sp ace", "bad\nname"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"x" * 10)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "empty").mkdir()
    found = models_document({"root": tmp_path, "gone": tmp_path / "missing"})
    assert [row["ref"] for row in found["models"]] == ["file:root/a/model", "file:root/b", "file:root/sp ace"]
    assert {row["bytes"] for row in found["models"]} == {10}
    assert found["whole"]


@pytest.mark.parametrize("engine", list(shipped_profiles()))
def test_menus_say_of_every_unit_and_format_what_the_profile_says(tables: list[SensitivityTable], engine: str) -> None:
    for table in tables:
        document = menus_document(table.inventory, table.formats)
        found = next(row for row in document["engines"] if row["name"] == engine)
        loads = [[why is None for why in found["refusals"][group]] for group in document["unit_class"]]
        assert loads == load_profile(engine).allowed(table.inventory, table.formats)
        if found["ties"]:
            ties = document["tied"][",".join(found["ties"])]
            assert ties == list(table.inventory.tie_ids(tuple(found["ties"])))


@pytest.mark.parametrize("engine", list(shipped_profiles()))
def test_menus_of_a_plan_agree_with_preflight(tables: list[SensitivityTable], engine: str) -> None:
    for table in tables:
        plan = plan_of(table, 4.0, measured=False)
        document = plan_menus(plan)
        found = next(row for row in document["engines"] if row["name"] == engine)
        choice = [document["formats"].index(unit.format) for unit in plan.units]
        refused = any(found["refusals"][c][j] for c, j in zip(document["unit_class"], choice, strict=True))
        ties = document["tied"].get(",".join(found["ties"]), list(range(len(choice))))
        torn = len({*zip(ties, choice, strict=True)}) > len(set(ties))
        assert (refused or torn) == bool(preflight(plan, inventory_of(plan), load_profile(engine)))


def test_menus_are_served_for_tables_and_plans(api: Running, tables: list[SensitivityTable]) -> None:
    table = tables[0]
    digest = store_table(api.blobs, table)
    answer = api.http.get(f"/v1/sensitivities/{digest}/engines")
    assert answer.json()["formats"] == list(table.formats)
    again = api.http.get(f"/v1/sensitivities/{digest}/engines", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    plan: Plan = plan_of(table, 4.0, measured=False)
    api.blobs.put_as("plans", plan.digest, plan)
    found = api.http.get(f"/v1/plans/{plan.digest}/engines").json()
    assert sum(row["units"] for row in found["classes"]) == len(plan.units)
    assert_problem(api.http.get(f"/v1/plans/sha256:{'0' * 64}/engines"), 404, "not-found")
    assert_problem(api.http.get(f"/v1/sensitivities/sha256:{'0' * 64}/engines"), 404, "not-found")


def test_a_server_whose_schema_was_outgrown_is_not_ready(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        assert server.http.get("/readyz").status_code == 200
        with server.store.database.write() as tx:
            tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            tx.connection.execute(text("UPDATE schema_floor SET oldest = '9998'"))
        assert_problem(server.http.get("/readyz"), 503, "temporary")
        assert server.http.get("/livez").status_code == 200
