"""A device budget: weights and KV cache chosen together, every byte accounted for, and refused when absurd."""

from __future__ import annotations

from typing import Any

import pytest

from bitwright.core.errors import Unsupported
from bitwright.core.plan import Plan, plan_from_json
from bitwright.core.plan_check import verify_plan
from bitwright.core.table import SensitivityTable, load_table
from bitwright.engines.proving import plan_problem
from tests.steps.bench import Bench

QUICK: dict[str, Any] = {
    "engine": "llama.cpp", "formats": ("q4_0", "q5_0", "q8_0"), "calibration_tokens": 256, "confirm_tokens": 256,
    "samples": 1,
}  # fmt: skip
SERVED = "256 context, batch 8"


def test_weights_and_cache_in_one_problem(bench: Bench, llama: str, text: str) -> None:
    found = bench.run("plan", model=llama, budget=f"370MB device, {SERVED}", calibration=text, **QUICK)
    plan = plan_from_json(found["plan"])
    memory = plan.memory
    assert memory is not None
    assert [choice.part for choice in memory.cache] == ["keys", "values"]
    assert memory.total_bytes <= memory.usable_bytes < memory.device_bytes == 370_000_000
    # The whole budget is used, up to what one more step up would cost.
    assert memory.usable_bytes - memory.total_bytes < 200_000
    spent = plan.totals.bytes + memory.cache_bytes
    assert plan.certificate["limits"]["bytes"] + memory.cache_bytes == memory.joint["limits"]["bytes"]
    assert memory.joint["cost"]["bytes"] >= spent - 200_000
    assert memory.joint["lower_bound"] <= plan.totals.predicted_loss + sum(choice.loss for choice in memory.cache)
    assert verify_plan(plan).ok
    _joint_is_proved(plan, load_table(bench.context().blobs.path("tables", found["table_digest"])))
    forged = plan.model_copy(update={"memory": None})
    assert "does not say how its memory is spent" in "; ".join(verify_plan(forged).failures)
    assert plan_from_json(plan.to_json()).digest == plan.digest != forged.digest


def _joint_is_proved(plan: Plan, table: SensitivityTable) -> None:
    """The joint bound is recomputed from the table and the cache's menu; every forged number is found."""
    problem, memory = plan_problem(plan, table), plan.memory
    assert memory is not None
    verdict = verify_plan(plan, problem)
    assert verdict.ok, verdict.failures
    assert [note for note in verdict.notes if note.startswith("weights and cache together: recomputed: loss")]
    joint = memory.joint
    first, *others = memory.menu
    forgeries = {
        "bound": {"joint": {**joint, "lower_bound": joint["lower_bound"] + 1e-3}},
        "limit": {"joint": {**joint, "limits": {"bytes": joint["limits"]["bytes"] - 1}}},
        "multipliers": {"joint": {**joint, "multipliers": {"bytes": 2 * joint["multipliers"]["bytes"]}}},
        "cost": {"joint": {**joint, "cost": {"bytes": joint["cost"]["bytes"] - 64}}},
        "a cheaper format hidden": {"menu": tuple(one for one in memory.menu if one not in memory.cache)},
        "loss of the cache": {"menu": (first.model_copy(update={"loss": -1.0}), *others)},
        "more than there is": {"total_bytes": memory.usable_bytes + 1},
    }
    for name, change in forgeries.items():
        forged = plan.model_copy(update={"memory": memory.model_copy(update=change)})
        assert not verify_plan(forged, problem).ok, name


def test_too_small_a_device_says_the_smallest(bench: Bench, llama: str, text: str) -> None:
    found = bench.run("plan", model=llama, budget=f"10MB device, {SERVED}", calibration=text, **QUICK)
    assert not found["feasible"]
    size = found["infeasible"]["smallest_budget"]["device_bytes"]
    assert f"{size}B device, 256 context, batch 8" in found["infeasible"]["hint"]
    again = bench.run(
        "plan", model=llama, budget=f"{size}B device, {SERVED}", calibration=text, **{**QUICK, "confirm": False}
    )
    assert again["feasible"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": None}, "needs an engine"),
        ({"metric": "weight-mse"}, "in nats"),
        ({"engine": "torchao"}, "engine whose profile"),
    ],
)
def test_what_a_device_budget_needs(change: dict[str, Any], message: str, bench: Bench, llama: str, text: str) -> None:
    members = {**QUICK, **change}
    if members["engine"] == "torchao":
        members["formats"] = ("int4-g64",)
    given = {key: value for key, value in members.items() if value is not None}
    with pytest.raises(Unsupported, match=message):
        bench.run("plan", model=llama, budget=f"370MB device, {SERVED}", calibration=text, **given)
