"""Plans, solutions and their diffs: canonical bytes, sidecars, damaged files."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.canonical import canonical_json
from bitwright.core.claim import Certificate
from bitwright.core.diff import diff_plans
from bitwright.core.errors import BitwrightError, Infeasible, InvalidPlan
from bitwright.core.plan import Plan, load_plan, plan_from_json
from bitwright.core.solution import SIDECAR_UNITS, Solution, load_solution
from tests.strategies import plans


@given(plans())
def test_a_plan_survives_its_file(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.save(path)
    assert load_plan(path) == plan
    assert path.read_bytes() == canonical_json(plan.to_json()) + b"\n"
    assert load_plan(path).digest == plan.digest


@given(plans())
def test_key_order_does_not_change_the_digest(plan: Plan) -> None:
    shuffled = dict(reversed(list(plan.to_json().items())))
    assert plan_from_json(shuffled).digest == plan.digest


@given(plans())
def test_the_digest_names_the_decision_not_the_measurement(plan: Plan) -> None:
    unmeasured = plan.model_copy(update={"measured": None})
    assert unmeasured.digest == plan.digest
    told = {**plan.provenance, "prediction": {"kl": 0.1}, "table": "sha256:1"}
    assert plan.model_copy(update={"provenance": told}).digest == plan.digest
    assert plan.model_copy(update={"provenance": {**plan.provenance, "seed": 10**6}}).digest != plan.digest
    first = plan.units[0]
    other = first.model_copy(update={"format": "int7-g32" if first.format != "int7-g32" else "int6-g32"})
    assert plan.model_copy(update={"units": (other, *plan.units[1:])}).digest != plan.digest


def _many(count: int) -> Plan:
    units = [{"name": f"u{i}", "format": "int4-g64", "elements": 64, "bytes": 38, "loss": i / 7} for i in range(count)]
    return plan_from_json(
        {
            "bitwright_plan": 1,
            "model": {"ref": "x", "digest": "sha256:0"},
            "units": units,
            "totals": {"bits_per_weight": 4.75, "bytes": 38 * count, "unquantized_bytes": 0, "predicted_loss": 1.0},
            "certificate": {"status": "bounded"},
        }
    )


def test_a_large_plan_has_its_units_beside_it(tmp_path: Path) -> None:
    plan = _many(SIDECAR_UNITS + 1)
    plan.save(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").stat().st_size < 1000
    assert load_plan(tmp_path / "plan.json") == plan
    (tmp_path / "plan.units.npz").unlink()
    with pytest.raises(InvalidPlan, match="missing"):
        load_plan(tmp_path / "plan.json")


def test_a_sidecar_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    np.savez(tmp_path / "x.npz", units=np.zeros(1, np.uint8))
    data = {**_many(1).to_json(), "units": {"npz": "../x.npz", "count": 1}}
    (folder / "plan.json").write_text(json.dumps(data))
    with pytest.raises(InvalidPlan):
        load_plan(folder / "plan.json")


@given(plans(), st.data())
def test_damaged_plans_give_typed_errors_only(plan: Plan, data: st.DataObject) -> None:
    document = plan.to_json()
    for _ in range(data.draw(st.integers(1, 3))):
        holder: Any = data.draw(st.sampled_from([document, document["model"], document["totals"]]))
        key = data.draw(st.sampled_from(sorted(holder)))
        holder[key] = data.draw(st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2))
        if not all(isinstance(document.get(k), dict) for k in ("model", "totals")):
            break
    with contextlib.suppress(InvalidPlan):
        plan_from_json(document)


def test_doubled_units_and_unknown_formats_are_refused() -> None:
    data = _many(1).to_json()
    with pytest.raises(InvalidPlan, match="twice"):
        plan_from_json({**data, "units": data["units"] * 2})
    with pytest.raises(BitwrightError, match="no format"):
        plan_from_json({**data, "units": [{**data["units"][0], "format": "int99"}]})


# --- solutions ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 63), min_size=1, max_size=30), st.floats(0, 1e9))
def test_a_solution_survives_its_file(tmp_path_factory: pytest.TempPathFactory, choice: list[int], loss: float) -> None:
    path = tmp_path_factory.mktemp("solution") / "s.json"
    certificate = Certificate("bounded", loss, loss / 2, loss - loss / 2, {"bits": 3}, {"bits": 4}, {"bits": 0.5})
    Solution(np.array(choice), loss, certificate, "hull").save(path)
    back = load_solution(path)
    assert back.choice.tolist() == choice
    assert (back.loss, back.certificate, back.solver) == (loss, certificate, "hull")


def test_a_large_solution_has_its_choice_beside_it(tmp_path: Path) -> None:
    choice = np.arange(SIDECAR_UNITS + 1) % 5
    Solution(choice, 0.0, Certificate("bounded"), "hull").save(tmp_path / "s.json")
    assert np.array_equal(load_solution(tmp_path / "s.json").choice, choice)
    (tmp_path / "s.choice.npz").unlink()
    with pytest.raises(InvalidPlan, match="missing"):
        load_solution(tmp_path / "s.json")


@pytest.mark.parametrize(
    "data",
    [
        [], {}, {"choice": [0]}, {"choice": ["x"], "certificate": {"status": "optimal"}},
        {"choice": [10**30], "certificate": {"status": "optimal"}}, {"choice": [0], "certificate": {}},
        {"choice": [0], "certificate": {"status": "optimal"}, "loss": "low"},
        {"choice": {"npz": "/etc/passwd"}, "certificate": {"status": "optimal"}},
    ],
)  # fmt: skip
def test_unreadable_solutions_are_refused(data: Any, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(data))
    with pytest.raises(InvalidPlan):
        load_solution(tmp_path / "s.json")


def test_an_infeasible_solution_says_the_smallest_limit() -> None:
    certificate = Certificate("infeasible", limits={"bytes": 5}, smallest_limit={"bytes": 9}, blame="limit bytes")
    solution = Solution(np.zeros(0, np.int64), None, certificate, "hull")
    assert not solution.feasible
    with pytest.raises(Infeasible) as caught:
        solution.require()
    assert caught.value.extra["smallest_limit"] == {"bytes": 9}
    assert "bytes = 9" in str(caught.value)


# --- diffs ----------------------------------------------------------------------------------------------------------


@given(plans())
def test_a_plan_does_not_differ_from_itself(plan: Plan) -> None:
    diff = diff_plans(plan, plan)
    assert diff.changes == ()
    assert (diff.bytes_delta, diff.loss_delta, diff.comparable) == (0, 0.0, True)


@given(plans(), st.data())
def test_a_diff_accounts_for_every_byte_and_loss(plan: Plan, data: st.DataObject) -> None:
    document = plan.to_json()
    changed = set(data.draw(st.sets(st.sampled_from([u["name"] for u in document["units"]]))))
    for unit in document["units"]:
        if unit["name"] in changed:
            unit["format"] = "int8-channel" if unit["format"] != "int8-channel" else "int2-g64"
            unit["bytes"] += data.draw(st.integers(0, 1000))
            unit["loss"] += 0.25
    document["totals"]["bytes"] = sum(u["bytes"] for u in document["units"])
    document["totals"]["predicted_loss"] = math.fsum(u["loss"] for u in document["units"])
    diff = diff_plans(plan, plan_from_json(document))
    assert {change.unit for change in diff.changes} == changed
    assert sum(change.bytes_delta for change in diff.changes) == diff.bytes_delta
    assert math.fsum(c.loss_delta for c in diff.changes) == pytest.approx(diff.loss_delta, rel=1e-6, abs=1e-6)
    json.dumps(diff.to_json(), allow_nan=False)


def test_units_of_one_plan_only_and_strangers() -> None:
    two, three = _many(2), _many(3)
    diff = diff_plans(two, three)
    assert [(c.unit, c.before, c.after, c.bytes_delta) for c in diff.changes] == [("u2", None, "int4-g64", 38)]
    stranger = plan_from_json({**two.to_json(), "units": [{**two.to_json()["units"][0], "name": "other"}]})
    with pytest.raises(InvalidPlan, match="no unit in common"):
        diff_plans(two, stranger)
