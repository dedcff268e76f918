"""Inventory, table, catalog, recipe, request, settings and canonical JSON: small values with sharp edges."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.canonical import atomic_write, canonical_json, digest_bytes, digest_file, digest_json
from bitwright.core.catalog import Catalog, Entry
from bitwright.core.certificate import violations
from bitwright.core.errors import (
    BitwrightError,
    InvalidInput,
    InvalidPlan,
    InvalidSetting,
    OutOfResources,
    UnknownName,
    Unsupported,
)
from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory, RestTensor, Unit
from bitwright.core.recipe import parse_recipe
from bitwright.core.requests import parse_request
from bitwright.core.table import SensitivityTable, load_table
from bitwright.settings import load_settings

# --- inventory and table ----------------------------------------------------------------------------------------------


def inventory(layers: int = 2) -> Inventory:
    units = [
        Unit(f"l{i}.{m}", f"l{i}.{m}", (8, 64), "F16", m, layer=i, families={"qkv": f"l{i}"} if m != "o" else {})
        for i in range(layers)
        for m in ("q", "k", "o")
    ]
    rest = (RestTensor("norm", (64,), "F32", "not a matrix", "norm"),)
    return Inventory("file:x/y", "sha256:0", "Tiny", "tiny", "causal-lm", layers, tuple(units), rest, ("assumed",))


def test_an_inventory_survives_json() -> None:
    value = inventory()
    assert Inventory.from_json(json.loads(json.dumps(value.to_json()))) == value


def test_coverage_accounts_for_every_byte() -> None:
    value = inventory()
    coverage = value.coverage()
    assert coverage["planned_bytes"] == 6 * 8 * 64 * 2
    assert coverage["unquantized_bytes"] == 256
    assert coverage["stored_bytes"] == sum(u.stored_bytes for u in value.units) + sum(
        t.stored_bytes for t in value.rest
    )
    assert coverage["planned_share"] + sum(row["share"] for row in coverage["unquantized"]) == pytest.approx(1)


def test_ties_join_families_and_only_those() -> None:
    assert inventory().tie_ids(("qkv",)) == (0, 0, 2, 3, 3, 5)
    assert inventory().tie_ids(()) == (0, 1, 2, 3, 4, 5)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
def test_ties_are_transitive_over_kinds(keys: list[tuple[int, int]]) -> None:
    units = tuple(
        Unit(f"u{i}", f"u{i}", (1, 1), "F16", "m", families={"a": str(a), "b": str(b)}) for i, (a, b) in enumerate(keys)
    )
    ids = Inventory("x", "d", "A", "t", "unknown", 0, units, ()).tie_ids(("a", "b"))
    for i, (a, b) in enumerate(keys):
        for j, (c, d) in enumerate(keys):
            if a == c or b == d:
                assert ids[i] == ids[j]
    # Connected components by brute force.
    groups = [{i} for i in range(len(keys))]
    for i, (a, b) in enumerate(keys):
        for j, (c, d) in enumerate(keys):
            if a == c or b == d:
                merged = groups[i] | groups[j]
                for k in merged:
                    groups[k] = merged
    assert len(set(ids)) == len({frozenset(g) for g in groups})


def table(loss: Any = None, stderr: Any = None) -> SensitivityTable:
    formats = ("int2-g64", "int4-g64", "bf16")
    shape = (6, 3)
    rng = np.random.default_rng(0)
    return SensitivityTable(
        inventory(),
        formats,
        rng.random(shape) if loss is None else loss,
        np.full(shape, math.nan) if stderr is None else stderr,
        "weight-mse",
        "squared error",
        {"seed": 0},
    )


def test_a_table_survives_its_file_with_inf_and_nan(tmp_path: Path) -> None:
    loss = np.random.default_rng(1).random((6, 3))
    loss[0, 0] = np.inf
    value = table(loss)
    value.save(tmp_path / "t.npz")
    back = load_table(tmp_path / "t.npz")
    assert np.array_equal(back.loss, value.loss)
    assert back.digest == value.digest != table(np.where(np.isinf(loss), 1.0, loss)).digest
    assert np.isnan(back.stderr).all()
    assert back.inventory == value.inventory


def test_costs_of_a_table_are_the_exact_storage_costs() -> None:
    value = table()
    for i, unit in enumerate(value.inventory.units):
        for j, name in enumerate(value.formats):
            assert value.cost_bytes()[i, j] == parse_format(name).storage(unit.shape).bytes


def test_the_problem_of_a_table_has_its_limit_ties_and_menu() -> None:
    value = table()
    allowed = np.ones((6, 3), bool)
    allowed[2, 0] = False
    problem = value.problem(5000, tie_kinds=("qkv",), allowed=allowed)
    assert (problem.n, problem.k, problem.groups) == (6, 3, 4)
    assert np.isinf(problem.loss[2, 0])
    assert problem.limits[0].value == 5000
    assert violations(problem, np.array([1, 1, 1, 1, 1, 1])) == []
    assert violations(problem, np.array([1, 2, 0, 1, 1, 1])) != []


@pytest.mark.parametrize("loss", [np.ones((5, 3)), np.full((6, 3), np.nan), np.full((6, 3), -np.inf)])
def test_tables_with_holes_are_refused(loss: Any) -> None:
    with pytest.raises(InvalidPlan):
        table(loss)


def test_an_npz_that_is_no_table_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", loss=np.ones((2, 2)))
    np.savez(tmp_path / "m.npz", loss=np.ones((2, 2)), stderr=np.ones((2, 2)), meta=np.array("{}"))
    for name in ("t.npz", "m.npz", "none.npz"):
        with pytest.raises(InvalidPlan):
            load_table(tmp_path / name)


# --- catalog ----------------------------------------------------------------------------------------------------------

CATALOG = Catalog(
    "thing", (Entry("path", "pathlib:Path", "here"), Entry("ghost", "ghost:x", "away", needs=("ghost_pkg",)))
)


def test_a_catalog_loads_when_asked_and_says_what_is_missing() -> None:
    assert CATALOG.load("path") is Path
    assert [entry.available for entry in CATALOG] == [True, False]
    with pytest.raises(Unsupported, match="ghost"):
        CATALOG.load("ghost")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        CATALOG.get("pathh")
    assert "path" in (caught.value.hint or "")


def test_two_entries_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="share a name"):
        Catalog("thing", (Entry("a", "x:y", ""), Entry("a", "x:z", "")))


# --- canonical JSON and atomic files ----------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_VALUES)
def test_canonical_json_is_a_fixed_point(value: Any) -> None:
    raw = canonical_json(value)
    assert canonical_json(json.loads(raw)) == raw
    assert digest_json(value) == digest_bytes(raw)


def test_canonical_json_takes_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(math.nan)


def write_then_fail(path: Path, error: BaseException) -> None:
    with atomic_write(path) as file:
        file.write(b"half")
        raise error


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    with pytest.raises(KeyboardInterrupt):
        write_then_fail(path, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file_and_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutOfResources, match="cannot write"):
        write_then_fail(path, OSError(28, "No space left on device"))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.bin"]


def test_a_written_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "out.bin"
    with atomic_write(path) as file:
        file.write(b"x" * 1000)
    assert digest_file(path) == digest_bytes(b"x" * 1000)


# --- recipes, requests, settings --------------------------------------------------------------------------------------


def test_a_recipe_error_names_the_line_and_the_member() -> None:
    with pytest.raises(InvalidInput, match="line 3, member 'granularity'"):
        parse_recipe('name = "x"\nsummary = "y"\ngranularity = "atom"\n', origin="x.toml")
    with pytest.raises(InvalidInput, match="not valid TOML"):
        parse_recipe("name = ", origin="x.toml")
    with pytest.raises(UnknownName):
        parse_recipe('name = "x"\nsummary = "y"\nformats = ["int99"]\n', origin="x.toml")


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({"kind": "plan", "model": "x"}, "/budget"),
        ({"kind": "plan", "model": "x", "budget": "3.5bpw", "extra": 1}, "/extra"),
        ({"kind": "inspect", "model": ""}, "/model"),
        ({"kind": "inspect", "model": "a\x00"}, "/model"),
        ({"kind": "evaluate", "model": "x", "tokens": 1}, "/tokens"),
        ({"kind": "sensitivity", "model": "x", "seed": -1}, "/seed"),
    ],
)
def test_a_wrong_request_points_at_its_member(data: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_request(data)
    assert pointer in [e["pointer"] for e in caught.value.extra["errors"]]


@given(st.dictionaries(st.sampled_from(["kind", "model", "budget", "formats", "seed", "plan"]), _VALUES))
def test_any_request_parses_or_is_refused(data: dict[str, Any]) -> None:
    try:
        request = parse_request(data)
    except BitwrightError:
        return
    assert request.kind == data["kind"]


def test_a_bad_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_PORT", "99999")
    with pytest.raises(InvalidSetting, match="BITWRIGHT_PORT"):
        load_settings()


def test_model_roots_come_from_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_MODEL_ROOTS", "a=/x, b=/y")
    assert load_settings().model_roots == {"a": Path("/x"), "b": Path("/y")}
