"""What a recipe asks of the problem besides losses: formats of some units only, count rules, a budget a layer.

Data of the recipe becomes the arrays that every problem may have (core.problem): forbidden cells, rules, limits over
subsets. Nothing here knows a recipe by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

import solvers
from bitwright.core.errors import InvalidInput, Unsupported
from bitwright.core.inventory import Inventory, Unit
from bitwright.core.problem import AT_LEAST, AT_MOST, IntArray, Limit, Problem, Rule
from bitwright.core.recipe import MenuLine, Recipe, RuleLine
from bitwright.engines.rules import unit_class


def require(recipe: Recipe, inventory: Inventory) -> None:
    """Raises Unsupported when the model lacks what the recipe is about."""
    if "experts" in recipe.requires and all(unit.expert is None for unit in inventory.units):
        raise Unsupported(
            f"the recipe {recipe.name} allocates bits to experts, and this model has none",
            expected="a mixture-of-experts model", got=f"architecture {inventory.architecture}",
            hint="use --recipe auto, or see `bitwright recipes` for recipes of dense models",
        )  # fmt: skip


def fitted(recipe: Recipe, inventory: Inventory) -> tuple[Recipe, list[str]]:
    """(the recipe with blocks of columns that divide every unit's inputs, what to say): halved until they do.

    Groups of the formats that were as long as a block stay so. A recipe that never fits is left as it is.
    """
    match = re.fullmatch(r"column:([0-9]+)", recipe.granularity)
    size = int(match[1]) if match else 0
    groups = [int(found[1]) for name in recipe.formats if (found := re.search(r"-g([0-9]+)", name))]
    halves = [size >> n for n in range(8) if size >> n and all(g == size or (size >> n) % g == 0 for g in groups)]
    fits = next((half for half in halves if _divides(half, inventory)), size)
    if fits == size:
        return recipe, []
    formats = tuple(
        name.removesuffix(f"-g{size}") + f"-g{fits}" if name.endswith(f"-g{size}") else name for name in recipe.formats
    )
    words = f"blocks of {fits} columns instead of {size}, which do not divide every matrix"
    return recipe.model_copy(update={"granularity": f"column:{fits}", "formats": formats}), [words]


def _divides(size: int, inventory: Inventory) -> bool:
    return all(unit.shape[1] % size == 0 for unit in inventory.units)


def allowed(recipe: Recipe, units: Sequence[Unit], formats: Sequence[str]) -> NDArray[np.bool_] | None:
    """(units, formats): what the recipe's menus leave; None without menus. A unit that no line names has the menu."""
    if not recipe.menus:
        return None
    found = np.zeros((len(units), len(formats)), np.bool_)
    meant = [_speaks_of(line, units) for line in recipe.menus]
    for row in range(len(units)):
        names = next(
            (line.formats for line, rows in zip(recipe.menus, meant, strict=True) if rows[row]), recipe.formats
        )
        found[row] = [name in names for name in formats]
    return found


def _speaks_of(line: MenuLine | RuleLine, units: Sequence[Unit]) -> list[bool]:
    """Whether a line of a recipe is about each unit."""
    count = 1 + max((unit.layer for unit in units if unit.layer is not None), default=-1)
    layers = {layer % count for layer in line.layers if -count <= layer < count}
    return [
        (not line.classes or unit_class(unit) in line.classes)
        and (not line.modules or any(fnmatchcase(unit.module, pattern) for pattern in line.modules))
        and (not line.layers or unit.layer in layers)
        for unit in units
    ]


def idle(recipe: Recipe, units: Sequence[Unit]) -> list[str]:
    """What to say of lines that name modules or layers which the model does not have."""
    kinds: dict[str, Sequence[MenuLine | RuleLine]] = {"menu": recipe.menus, "rule": recipe.rules}
    return [
        f"{kind} {number} of the recipe {recipe.name} is about no unit of this model: "
        + ", ".join(f"{name} = {list(value)}" for name in ("modules", "layers") if (value := getattr(line, name)))
        for kind, lines in kinds.items()
        for number, line in enumerate(lines, 1)
        if (line.modules or line.layers) and not any(_speaks_of(line, units))
    ]


def constrained(problem: Problem, recipe: Recipe, units: Sequence[Unit]) -> Problem:
    """The problem with the recipe's rules and its limits a layer. units: the unit of each row of the problem."""
    rules = tuple(rule for line in recipe.rules for rule in _rules(line, problem, units))
    limits = problem.limits
    if recipe.spread == "layer" and limits:
        limits = (*limits, *layer_limits(problem, units, int(limits[0].value)))
    return replace(problem, rules=rules, limits=limits) if rules or limits is not problem.limits else problem


def _rules(line: RuleLine, problem: Problem, units: Sequence[Unit]) -> list[Rule]:
    names = problem.format_names or ()
    formats = np.array([names.index(name) for name in line.formats if name in names], np.int64)
    if not len(formats):
        raise InvalidInput("a rule names formats that are not in the menu", got=", ".join(line.formats))
    found = []
    for rows in _counted(line, problem, units):
        for count, sense in ((line.at_least, AT_LEAST), (line.at_most, AT_MOST)):
            if count is not None:
                found.append(Rule(rows, formats, sense, count))
    return found


def _counted(line: RuleLine, problem: Problem, units: Sequence[Unit]) -> list[IntArray]:
    """One row of the problem for each choice that the line counts, by layer or all together."""
    speaks = _speaks_of(line, units)
    first = np.unique(problem.group_index, return_index=True)[1]
    meant = [int(i) for i in first if speaks[i]]
    if line.each == "model":
        return [np.array(meant, np.int64)] if meant else []
    layers = sorted({layer for i in meant if (layer := units[i].layer) is not None})
    return [np.array([i for i in meant if units[i].layer == layer], np.int64) for layer in layers]


@dataclass(frozen=True)
class _Share:
    """Of a layer: its rows, what those of them cost that have no choice, and its share, by weights, of the rest."""

    rows: IntArray
    free: IntArray
    fixed: int
    share: float


def layer_limits(problem: Problem, units: Sequence[Unit], total: int) -> tuple[Limit, ...]:
    """A limit on the bytes of each layer: its units without a choice, and its share of what is left for the others.

    Left is what units without a choice do not take, anywhere; units outside layers have a share of it, too. Layers that
    are alike get alike limits; a layer without experts does not pay for its 4-bit attention out of a 2-bit share.
    """
    layers, fixed = _shares(problem, units)
    return tuple(
        Limit("bytes", layer.fixed + max(0, math.floor((total - fixed) * layer.share)), f"layer{number}", layer.rows)
        for number, layer in layers.items()
    )


def _shares(problem: Problem, units: Sequence[Unit]) -> tuple[dict[int, _Share], int]:
    """(layer -> its share, bytes of all units without a choice)."""
    costs, possible = problem.resource("bytes").costs(), np.isfinite(problem.loss)
    single = possible.sum(axis=1) == 1
    paid = np.where(single, np.where(possible, costs, 0).sum(axis=1), 0)
    rows: dict[int, list[int]] = {}
    elements: dict[int | None, dict[str, int]] = {}
    for row, unit in enumerate(units):
        if unit.layer is not None:
            rows.setdefault(unit.layer, []).append(row)
        if not single[row]:
            elements.setdefault(unit.layer, {})[unit.name] = unit.elements
    weights = {layer: sum(members.values()) for layer, members in elements.items()}
    whole = max(1, sum(weights.values()))
    found = {}
    for layer, members in sorted(rows.items()):
        every = np.array(members, np.int64)
        share = weights.get(layer, 0) / whole
        found[layer] = _Share(every, every[~single[every]], int(paid[every].sum()), share)
    return found, int(paid.sum())


def smallest_bytes(problem: Problem, recipe: Recipe, units: Sequence[Unit]) -> int | None:
    """The smallest total limit on the units' bytes under which the recipe's rules and shares leave a plan.

    None when no limit is large enough: the rules contradict each other.
    """
    costs = problem.resource("bytes").costs()
    loss = np.where(np.isfinite(problem.loss), costs.astype(np.float64), np.inf)
    cheapest = solvers.solve(replace(problem, loss=loss, limits=()))
    if not cheapest.feasible:
        return None
    taken = costs[np.arange(problem.n), cheapest.choice]
    if recipe.spread == "model":
        return int(taken.sum())
    layers, fixed = _shares(problem, units)
    need = max((int(taken[layer.free].sum()) / layer.share for layer in layers.values() if layer.share), default=0)
    least = max(int(taken.sum()), math.ceil(need) + fixed)
    while any(limit.value < taken[limit.units].sum() for limit in layer_limits(problem, units, least)):
        least += 1
    return least
