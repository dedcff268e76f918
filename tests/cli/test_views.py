"""Plans as text."""

from __future__ import annotations

from typing import Any

import pytest

from bitwright.cli.views import plan_text
from bitwright.core.plan import Plan, plan_from_json

WORDS = "--recipe auto-gptq"


def plan(bits: float = 3.5, measured: bool = True, unit_of_kl: str = "nats of KL per token", **provenance: Any) -> Plan:
    unit = {"name": "a.weight", "format": "int3-g64", "elements": 64, "bytes": 28, "loss": 0.5}
    quality = {"kl": 0.5, "stderr": 0.01, "tokens": 64, "unit": unit_of_kl}
    return plan_from_json(
        {
            "bitwright_plan": 1,
            "model": {"ref": "file:models/x", "digest": "sha256:" + "0" * 64},
            "units": [unit],
            "totals": {"bits_per_weight": bits, "bytes": 28, "unquantized_bytes": 4, "predicted_loss": 0.5},
            "certificate": {"status": "optimal", "loss": 0.5, "lower_bound": 0.5, "gap": 0.0, "multipliers": {}},
            **({"measured": quality} if measured else {}),
            "provenance": {"recipe": "auto", "quantizer": "rtn", **provenance},
        }
    )


def test_a_default_plan_says_what_would_lose_less() -> None:
    assert WORDS in plan_text(plan(), None)


@pytest.mark.parametrize(
    "other",
    [
        plan(measured=False),
        plan(bits=6.5),
        plan(quantizer="gptq-gain"),
        plan(recipe="higgs"),
        plan(recipe=None),
        plan(unit_of_kl="cosine distance per sentence"),
    ],
)
def test_other_plans_do_not(other: Plan) -> None:
    assert WORDS not in plan_text(other, None)
