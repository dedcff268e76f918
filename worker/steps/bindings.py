"""A plan's limits and rules in words, with what each costs: for people who ask why a unit got its format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bitwright.core.inventory import Inventory, Unit
from bitwright.core.plan import Binding
from bitwright.core.problem import AT_LEAST, IntArray, Limit, Problem, Rule
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable

#: Modules that are spelled out; more are counted.
MOST_NAMED = 3


def bindings(problem: Problem, solution: Solution, table: SensitivityTable) -> tuple[Binding, ...]:
    """Every limit and rule of the problem. table: its rows are the problem's, its units the plan's."""
    prices, cost = solution.certificate.multipliers, solution.certificate.cost
    of_row = table.row_units
    found = [
        Binding(
            name=limit.name, kind="limit", words=_limit_words(limit, table.inventory, of_row),
            value=limit.value, used=cost[limit.name], price=prices.get(limit.name, 0.0),
            units=None if limit.units is None else _units(limit.units, of_row),
        )
        for limit in problem.limits
    ]  # fmt: skip
    for index, rule in enumerate(problem.rules):
        name = f"rule:{index}"
        used = int(np.isin(solution.choice[rule.units], rule.formats).sum())
        members = np.flatnonzero(np.isin(problem.group_index, problem.group_index[rule.units]))
        formats = tuple((problem.format_names or ())[j] for j in rule.formats.tolist())
        found.append(
            Binding(
                name=name, kind="rule", words=_rule_words(rule, formats, table.inventory, of_row),
                value=rule.count, used=used, price=prices.get(name, 0.0), units=_units(members, of_row),
                sense="at least" if rule.sense == AT_LEAST else "at most", formats=formats,
            )
        )  # fmt: skip
    return tuple(found)


def _units(rows: IntArray, of_row: IntArray) -> tuple[int, ...]:
    return tuple(np.unique(of_row[rows]).tolist())


def _limit_words(limit: Limit, inventory: Inventory, of_row: IntArray) -> str:
    if limit.units is None:
        return f"{limit.resource} of all planned units"
    units = [inventory.units[i] for i in _units(limit.units, of_row)]
    return f"{limit.resource} of {_place(units) or limit.subset}"


def _rule_words(rule: Rule, formats: Sequence[str], inventory: Inventory, of_row: IntArray) -> str:
    """`layer 3: at least 1 of 8 experts in int3-g64`."""
    units = [inventory.units[i] for i in of_row[rule.units].tolist()]
    experts = all(unit.expert is not None for unit in units)
    noun = "experts" if experts else "choices"
    sense = "at least" if rule.sense == AT_LEAST else "at most"
    place = (f"layer {units[0].layer}" if _place(units) else "") if experts else _place(units)
    return f"{place or 'all layers'}: {sense} {rule.count} of {len(units)} {noun} in {_listed(formats, 'or')}"


def _place(units: Iterable[Unit]) -> str:
    """The layer and the modules that units share; empty where they share no layer."""
    layers = {unit.layer for unit in units}
    if len(layers) != 1 or None in layers:
        return ""
    modules = dict.fromkeys(unit.module for unit in units)
    known = f", {_listed(list(modules), 'and')}" if len(modules) <= MOST_NAMED else ""
    return f"layer {layers.pop()}{known}"


def _listed(names: Sequence[str], last: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
