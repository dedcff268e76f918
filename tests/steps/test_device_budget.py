"""A device budget: weights and KV cache chosen together, every byte accounted for, and refused when absurd."""

from __future__ import annotations

from typing import Any

import pytest

from bitwright.core.errors import Unsupported
from bitwright.core.plan import plan_from_json
from bitwright.core.plan_check import verify_plan
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
    forged = plan.model_copy(update={"memory": None})
    assert "does not say how its memory is spent" in "; ".join(verify_plan(forged).failures)
    assert plan_from_json(plan.to_json()).digest == plan.digest != forged.digest


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
