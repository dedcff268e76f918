"""Shared Hypothesis strategies: every new feature that has values to vary joins this file.

shapes, format_names      what a unit can look like and how it can be stored
mixed_cases               how a matrix is cut into parts, and a format for each
problems                  allocation problems, small enough for brute force, with every optional part
covers                    fusion problems: exact covers by bundles
choices                   a choice for a problem, feasible or not
budgets                   budget texts that parse
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from bitwright.core.formats import NAMED, Format, parse_format
from bitwright.core.mixed_format import cut
from bitwright.core.problem import AT_LEAST, AT_MOST, Limit, Pairs, Problem, Resource, Rule, compact_bits

# --- formats and shapes -------------------------------------------------------------------------------------------


def shapes(*, largest: int = 130, stacked: bool = False) -> st.SearchStrategy[tuple[int, ...]]:
    """(out, in) of a unit; with `stacked`, also (experts, out, in)."""
    side = st.integers(1, largest)
    flat = st.tuples(side, side)
    return flat | st.tuples(st.integers(1, 4), side, side) if stacked else flat


@st.composite
def format_names(draw: st.DrawFn, *, widths: tuple[int, ...] = tuple(range(1, 9))) -> str:
    """Names of integer formats of every width, symmetry, group size and type of scale, and of every other format."""
    if draw(st.integers(0, 4)) == 0:
        return draw(
            st.sampled_from([*sorted(NAMED), "nf4-g1", "nf4-g7", "nf4-g128", "higgs-p1-n8-g32", "higgs-p2-n32-g64"])
        )
    kind = str(draw(st.sampled_from(widths)))
    if draw(st.integers(0, 3)) == 0:
        kind = f"-l{draw(st.integers(3, 255).filter(lambda levels: levels & (levels - 1)))}"
    group = draw(st.sampled_from(["channel", "tensor", "g1", "g7", "g32", "g64", "g128"]))
    scale = draw(st.sampled_from(["", "", "", "-bf16", "-fp32"]))
    return f"int{kind}{'-sym' if draw(st.booleans()) else ''}-{group}{scale}"


# --- problems -----------------------------------------------------------------------------------------------------


def _losses(draw: st.DrawFn, n: int, k: int, forbidden: bool) -> np.ndarray[Any, Any]:
    cell = st.integers(0, 1000).map(lambda v: v / 8) if draw(st.booleans()) else st.floats(-1, 100, width=32)
    loss = np.array(draw(st.lists(cell, min_size=n * k, max_size=n * k)), np.float64).reshape(n, k)
    if forbidden and draw(st.booleans()):
        mask = np.array(draw(st.lists(st.integers(0, 5), min_size=n * k, max_size=n * k))).reshape(n, k) == 0
        mask[:, draw(st.integers(0, k - 1))] = False  # one common column stays allowed, whatever the ties
        loss[mask] = np.inf
    return loss.astype(np.float32) if draw(st.booleans()) else loss


def _resource(draw: st.DrawFn, n: int, k: int, name: str) -> Resource:
    if name == "bits":
        size = draw(st.lists(st.integers(1, 50), min_size=n, max_size=n))
        rate = draw(st.lists(st.integers(1, 16), min_size=k, max_size=k))
        return compact_bits(size, rate, draw(st.sampled_from([1, 2, 64])))
    cells = st.integers(0, 200)
    matrix = np.array(draw(st.lists(cells, min_size=n * k, max_size=n * k)), np.int64).reshape(n, k)
    return Resource(name, matrix=matrix)


def _limit(draw: st.DrawFn, resource: Resource, units: np.ndarray[Any, Any] | None, subset: str | None) -> Limit:
    costs = resource.costs() if units is None else resource.costs()[units]
    low, high = int(costs.min(axis=1).sum()), int(costs.max(axis=1).sum())
    return Limit(resource.name, draw(st.integers(max(0, low - 2), high + 1)), subset, units)


def _subset(draw: st.DrawFn, n: int) -> np.ndarray[Any, Any]:
    return np.array(sorted(draw(st.sets(st.integers(0, n - 1), min_size=1))), np.int64)


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    units: tuple[int, int] = (1, 6),
    formats: tuple[int, int] = (1, 4),
    forbidden: bool = True,
    ties: bool = True,
    rules: bool = False,
    pairs: bool = False,
    resources: tuple[int, int] = (1, 1),
    subsets: bool = False,
    limited: bool = True,
) -> Problem:
    """Problems that brute force can solve; the limit may be too small, tight or loose."""
    n, k = draw(st.integers(*units)), draw(st.integers(*formats))
    loss = _losses(draw, n, k, forbidden)
    names = ["bits" if draw(st.booleans()) else "bytes", "latency_us", "bops"][: draw(st.integers(*resources))]
    found = tuple(_resource(draw, n, k, name) for name in names)
    limits = [_limit(draw, r, None, None) for r in found] if limited else []
    if subsets and found and draw(st.booleans()):
        limits.append(_limit(draw, found[0], _subset(draw, n), "block"))
    tie = (
        np.array(draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n)), np.int64)
        if ties and draw(st.booleans())
        else None
    )
    found_rules = []
    for _ in range(draw(st.integers(0, 2)) if rules else 0):
        sense = draw(st.sampled_from([AT_LEAST, AT_MOST]))
        found_rules.append(Rule(_subset(draw, n), _subset(draw, k), sense, draw(st.integers(0, n))))
    return Problem(
        loss, found, tuple(limits), tie, tuple(found_rules), _pairs(draw, n, k) if pairs and n > 1 else Pairs(),
    )  # fmt: skip


@st.composite
def covers(draw: st.DrawFn) -> Problem:
    """Fusion problems (`solvers.covers`) for brute force: bundles of up to three members, one limit or two."""
    from solvers.covers import fusion_problem

    members, k = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    shapes = [s for size in (2, 3) for s in itertools.combinations(range(members), size)]
    bundles = [(m,) for m in range(members)] + draw(
        st.lists(st.sampled_from(shapes), max_size=2, unique=True) if shapes else st.just([])
    )
    loss = np.array(draw(st.lists(st.integers(0, 80).map(lambda v: v / 8), min_size=members * k, max_size=members * k)))
    costs, limits = {}, {}
    for name in ["latency_us", "bytes"][: draw(st.integers(1, 2))]:
        cells = draw(st.lists(st.integers(0, 40), min_size=len(bundles) * k, max_size=len(bundles) * k))
        costs[name] = np.array(cells, np.int64).reshape(-1, k)
        limits[name] = draw(st.integers(0, 40 * members))
    return fusion_problem(loss.reshape(members, k), bundles, costs, limits)


def _pairs(draw: st.DrawFn, n: int, k: int) -> Pairs:
    count = draw(st.integers(0, 4))
    rows = [draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True)) for _ in range(count)]
    formats = [draw(st.lists(st.integers(0, k - 1), min_size=2, max_size=2)) for _ in range(count)]
    loss = draw(st.lists(st.integers(-20, 20).map(lambda v: v / 4), min_size=count, max_size=count))
    shape = (count, 2)
    return Pairs(
        np.array(rows, np.int64).reshape(shape), np.array(formats, np.int64).reshape(shape), np.array(loss, np.float64)
    )


@st.composite
def choices(draw: st.DrawFn, problem: Problem) -> np.ndarray[Any, Any]:
    """A choice for `problem`: half of the time it respects the ties, so that feasible ones come up often."""
    picks = np.array(draw(st.lists(st.integers(0, problem.k - 1), min_size=problem.n, max_size=problem.n)), np.int64)
    return picks[problem.group_index] if draw(st.booleans()) else picks


# --- budgets ------------------------------------------------------------------------------------------------------


@st.composite
def budgets(draw: st.DrawFn) -> str:
    """Budget texts of both kinds that `parse_budget` takes."""
    if draw(st.booleans()):
        return f"{draw(st.integers(1, 6400)) / 100}bpw"
    unit = draw(st.sampled_from(["B", "KB", "MB", "GB", "KiB", "MiB", "GiB"]))
    return f"{draw(st.integers(1, 10**6))}{unit}"


# --- plans --------------------------------------------------------------------------------------------------------

_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20)


@st.composite
def plans(draw: st.DrawFn, *, largest: int = 6) -> Any:
    """Valid plans with every optional member sometimes there."""
    from bitwright.core.plan import plan_from_json

    names = draw(st.lists(_NAMES, min_size=1, max_size=largest, unique=True))
    finite = st.floats(-1e6, 1e6)
    units = [
        {
            "name": name,
            "format": draw(format_names()),
            "elements": draw(st.integers(0, 10**9)),
            "bytes": draw(st.integers(0, 10**9)),
            "loss": draw(finite),
            **({"layer": draw(st.integers(0, 99)), "shape": [4, 8]} if draw(st.booleans()) else {}),
        }
        for name in names
    ]
    measured = {"kl": draw(finite), "stderr": 0.5, "tokens": 16, "unit": draw(st.sampled_from(["nats", "bits"]))}
    return plan_from_json(
        {
            "bitwright_plan": 1,
            "model": {"ref": "file:models/x", "digest": "sha256:" + "0" * 64},
            "units": units,
            "totals": {
                "bits_per_weight": 3.5,
                "bytes": sum(u["bytes"] for u in units),
                "unquantized_bytes": 7,
                "predicted_loss": sum(u["loss"] for u in units),
            },
            "certificate": {"status": "bounded", "loss": 1.0, "lower_bound": 0.5, "gap": 0.5},
            "provenance": {"table": draw(st.sampled_from(["a", "b"]))},
            **({"measured": measured} if draw(st.booleans()) else {}),
        }
    )


# --- parts of matrices --------------------------------------------------------------------------------------------


#: granularity, (out, in), menu, a number of the menu for each part
MixedCase = tuple[str, tuple[int, int], tuple[Format, ...], list[int]]


@st.composite
def mixed_cases(draw: st.DrawFn) -> MixedCase:
    """A granularity, a matrix, a menu that fits both, and a choice among it for every part."""
    granularity = draw(st.sampled_from(["row", "row:2", "row:5", "column", "column:4", "column:8", "group"]))
    out, blocks = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    fine = granularity == "group" or (":" in granularity and granularity.startswith("column"))
    inputs = blocks * 8 if fine else draw(st.integers(1, 40))
    groups = (
        ["g4"] if granularity in ("group", "column:4") else ["g4", "g8"] if fine else ["g1", "g7", "g32", "channel"]
    )
    names = st.builds(
        lambda width, sym, group: f"int{width}{sym}-{group}",
        st.integers(1, 8), st.sampled_from(["", "-sym"]), st.sampled_from(groups),
    )  # fmt: skip
    if granularity.startswith("row"):
        names |= st.sampled_from(["bf16", "fp16", "int-l6-g8", "int3-sym-g8-fp32"])
    menu = tuple(parse_format(name) for name in draw(st.lists(names, min_size=1, max_size=8, unique=True)))
    parts = cut(granularity, (out, inputs), menu).parts
    return (
        granularity,
        (out, inputs),
        menu,
        draw(st.lists(st.integers(0, len(menu) - 1), min_size=parts, max_size=parts)),
    )
