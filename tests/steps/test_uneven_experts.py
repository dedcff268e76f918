"""Plans with uneven experts say that nothing serves them, and what tying the experts would cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.steps.bench import Bench

QUICK: dict[str, Any] = {
    "metric": "weight-mse",
    "confirm": False,
    "time_limit": 1.0,
    "formats": ("int2-g32", "int4-g32", "int8-g32"),
}


@pytest.fixture(scope="module")
def mixtral(models_dir: Path) -> str:
    return str(models_dir / "mixtral-stdlib")


def test_uneven_experts_are_labelled_with_their_gain(mixtral: str, bench: Bench) -> None:
    found = bench.run("plan", model=mixtral, budget="3.5bpw", **QUICK)["plan"]
    said = [text for text in found["warnings"] if "no known engine serves this plan" in text]
    assert len(said) == 1
    tied, free = _losses(said[0])
    assert tied > free
    assert free == pytest.approx(found["totals"]["predicted_loss"], rel=1e-3)


def _losses(text: str) -> tuple[float, float]:
    words = text.split("predicted to lose ")[1].split(" ")
    return float(words[0]), float(words[3])


def test_tied_plans_are_not(mixtral: str, bench: Bench) -> None:
    formats = ("int4-sym-g32", "int8-sym-g32", "fp16")
    found = bench.run("plan", model=mixtral, budget="6bpw", engine="llama.cpp", **{**QUICK, "formats": formats})["plan"]
    assert not [text for text in found["warnings"] if "no known engine" in text]


def test_uneven_experts_that_an_engine_loads_name_it(mixtral: str, bench: Bench) -> None:
    """GPTQModel gives every expert a setting of its own: no known other does."""
    quick = {**QUICK, "formats": ("int2-sym-g32", "int4-sym-g32", "int8-sym-g32", "fp16")}
    served = bench.run("plan", model=mixtral, budget="3.5bpw", engine="gptqmodel", **quick)["plan"]
    assert not [text for text in served["warnings"] if "serves this plan" in text]
    differing = {
        role
        for layer in range(4)
        for role in ("w1", "w2", "w3")
        if len({u["format"] for u in served["units"] if f".{layer}.block" in u["name"] and f".{role}." in u["name"]})
        > 1
    }
    assert differing
