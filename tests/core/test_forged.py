"""Forged plans and solutions: what the checker must not let pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bitwright.core.certificate import certify, infeasible, verify
from bitwright.core.errors import InvalidPlan, InvalidProblem
from bitwright.core.plan import plan_from_json
from bitwright.core.plan_check import verify_plan
from bitwright.core.problem import Limit, Problem, Resource
from bitwright.core.solution import Solution, verify_solution

#: int4-g64 of 64 x 64 weights: 2048 bytes of codes, 128 of scales, 32 of zero points.
BYTES = 2208


def _plan() -> dict[str, Any]:
    unit = {"format": "int4-g64", "elements": 4096, "bytes": BYTES, "loss": 0.5, "shape": [64, 64]}
    return {
        "bitwright_plan": 1,
        "model": {"ref": "m", "digest": "sha256:0"},
        "units": [{"name": "a", **unit}, {"name": "b", **unit}],
        "totals": {
            "bits_per_weight": 8 * 2 * BYTES / 8192, "bytes": 2 * BYTES, "unquantized_bytes": 10, "predicted_loss": 1.0,
        },
        "certificate": {
            "status": "bounded", "loss": 1.0, "lower_bound": 0.75, "gap": 0.25,
            "cost": {"bytes": 2 * BYTES}, "limits": {"bytes": 4608}, "multipliers": {"bytes": 0.0},
        },
        "budget": "4.5bpw",
    }  # fmt: skip


def test_the_honest_plan_verifies() -> None:
    assert verify_plan(plan_from_json(_plan())).ok


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no shape": lambda p: p["units"][0].pop("shape"),
    "gap": lambda p: p["certificate"].update(gap=0.0),
    "optimal without proof": lambda p: p["certificate"].update(status="optimal"),
    "bound above the loss": lambda p: p["certificate"].update(lower_bound=2.0, gap=0.0),
    "bound by no cases": lambda p: p["certificate"].update(case_bound=0.9),
    "bound by cases above the loss": lambda p: p["certificate"].update(case_bound=1.1, cases=[0, -1, 0, 0]),
    "no bound": lambda p: p["certificate"].pop("lower_bound"),
    "infeasible": lambda p: p["certificate"].update(status="infeasible"),
    "budget": lambda p: p.update(budget="2bpw"),
    "limit": lambda p: p["certificate"]["limits"].update(bytes=10**9),
    "whole file": lambda p: p.update(budget="4000B"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_plan_does_not_verify_even_without_its_problem(name: str) -> None:
    document = _plan()
    FORGERIES[name](document)
    verdict = verify_plan(plan_from_json(document))
    assert not verdict.ok
    assert verdict.failures


@pytest.mark.parametrize("place", ["name", "module", "ref", "warnings"])
def test_control_characters_in_a_plan_are_refused(place: str) -> None:
    document, evil = _plan(), "a\x1b[31mb\n"
    holder = {"ref": document["model"], "warnings": document}.get(place, document["units"][0])
    holder[place] = [evil] if place == "warnings" else evil
    with pytest.raises(InvalidPlan, match="wrong at"):
        plan_from_json(document)


def _problem() -> Problem:
    cost = Resource("bytes", matrix=np.array([[1, 4], [1, 4]]))
    return Problem(loss=np.array([[3.0, 1.0], [2.0, 1.0]]), resources=(cost,), limits=(Limit("bytes", 5),))


def test_a_forged_limit_does_not_verify() -> None:
    problem, choice = _problem(), np.array([1, 0])
    honest = certify(problem, choice, {"bytes": 0.5})
    assert verify(problem, choice, honest).ok
    assert not verify(problem, choice, replace(honest, limits={"bytes": 10**6})).ok


def test_a_forged_loss_beside_the_certificate_does_not_verify() -> None:
    problem, choice = _problem(), np.array([1, 0])
    honest = certify(problem, choice, {"bytes": 0.5})
    assert verify_solution(problem, Solution(choice, honest.loss, honest, "hull")).ok
    assert not verify_solution(problem, Solution(choice, 0.0, honest, "hull")).ok


def test_a_forged_smallest_limit_does_not_verify() -> None:
    problem = _problem().with_limit("bytes", 1)
    honest = infeasible(problem, "too little")
    empty = np.zeros(0, np.int64)
    assert verify(problem, empty, honest).ok
    assert not verify(problem, empty, replace(honest, smallest_limit={"bytes": 1})).ok


def test_control_characters_in_a_problem_are_refused() -> None:
    with pytest.raises(InvalidProblem, match="control characters"):
        Problem(loss=np.zeros((2, 1)), unit_names=("a", "b\x1b[2J"))


def _with_rungs(cheap: int, dear: int) -> tuple[dict[str, Any], Problem]:
    """The honest plan in a problem whose units have menus of their own: the first column is int4-g64's."""
    document = _plan()
    for unit in document["units"]:
        unit["rung"] = "rung-0"
    problem = Problem(
        loss=np.array([[0.5, 0.5], [0.5, 0.5]]),
        resources=(Resource("bytes", matrix=np.array([[cheap, dear], [cheap, dear]])),),
        limits=(Limit("bytes", 4608),),
        unit_names=("a", "b"),
        format_names=("rung-0", "rung-1"),
    )
    document["certificate"].update(lower_bound=1.0, gap=0.0, status="optimal")
    return document, problem


def test_a_rung_that_agrees_with_its_format_verifies() -> None:
    document, problem = _with_rungs(BYTES, 2 * BYTES)
    verdict = verify_plan(plan_from_json(document), problem)
    assert verdict.ok, verdict.failures


@pytest.mark.parametrize("what", ["format", "loss"])
def test_a_rung_that_belongs_to_another_format_does_not_verify(what: str) -> None:
    """Bytes and losses exchanged between two units keep every sum: only the cells tell."""
    document, problem = _with_rungs(BYTES, 2 * BYTES)
    if what == "loss":
        document["units"][0]["loss"], document["units"][1]["loss"] = 0.25, 0.75
    else:
        int2 = 2048 // 2 + 128 + 16
        matrix = np.array([[BYTES, int2], [BYTES, int2]])
        problem = replace(problem, resources=(Resource("bytes", matrix=matrix),))
        document["units"][0].update(rung="rung-1")  # int4's bytes, int2's column
        document["units"][1].update(rung="rung-1")
    verdict = verify_plan(plan_from_json(document), problem)
    assert not verdict.ok
    assert any("rung-" in text and "a: int4-g64" in text for text in verdict.failures)
