"""The nearest plan that an engine would load, and what it costs against the plan as it is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitwright.core.errors import InvalidPlan
from bitwright.core.formats import IntFormat, listed_formats, parse_format
from bitwright.core.inventory import Inventory, Unit
from bitwright.core.plan import Plan
from bitwright.core.table import SensitivityTable
from bitwright.engines.preflight import find_device
from bitwright.engines.profile import EngineProfile


@dataclass(frozen=True)
class Nearest:
    """formats: of every unit; changed: (unit, before, after) of those that take another one.

    bytes_delta: planned units, after less before. loss_delta: predicted, where a sensitivity table was given that knows
    every new choice.
    """

    formats: Mapping[str, str]
    changed: tuple[tuple[str, str, str], ...]
    bytes_delta: int
    loss_delta: float | None

    def to_json(self) -> dict[str, Any]:
        changed = [{"unit": unit, "before": before, "after": after} for unit, before, after in self.changed]
        return {"changed": changed, "bytes_delta": self.bytes_delta, "loss_delta": self.loss_delta}


def nearest_loadable(
    plan: Plan,
    inventory: Inventory,
    profile: EngineProfile,
    *,
    device: str | None = None,
    table: SensitivityTable | None = None,
) -> Nearest | None:
    """Each tie group keeps its format where the engine loads it, else takes the loadable one nearest in bytes.

    Of two as near, the larger; the candidates are the plan's own formats and all that bitwright knows. None when the
    engine loads some group in no known format. Raises InvalidPlan for a plan of other units.
    """
    before = plan.formats()
    if set(before) != {unit.name for unit in inventory.units}:
        raise InvalidPlan("the plan's units are not the model's units", hint="plan this model again")
    candidates = _candidates(before, profile, device)
    groups: defaultdict[int, list[Unit]] = defaultdict(list)
    for unit, tie in zip(inventory.units, inventory.tie_ids(profile.tie_kinds), strict=True):
        groups[tie].append(unit)
    after: dict[str, str] = {}
    for units in groups.values():
        found = _closest(units, before, candidates, profile)
        if found is None:
            return None
        after.update(dict.fromkeys((unit.name for unit in units), found))
    changed = tuple((name, before[name], after[name]) for name in before if after[name] != before[name])
    shapes = {unit.name: unit.shape for unit in inventory.units}
    delta = sum(_bytes(new, shapes[name]) - _bytes(old, shapes[name]) for name, old, new in changed)
    return Nearest(after, changed, delta, None if table is None else _loss_delta(changed, table))


def loadable(
    inventory: Inventory, formats: Sequence[str], profile: EngineProfile, device: str | None
) -> list[list[bool]]:
    """(units, formats): whether the engine loads each unit in each format on this device. Raises UnknownName."""
    row, _ = find_device(profile, device)
    table = profile.allowed(inventory, formats)
    parsed = [parse_format(name) for name in formats]
    widths = [format.width if isinstance(format, IntFormat) else None for format in parsed]
    served = [row is None or not row.refusals(None, width) for width in widths]
    return [[fine and here for fine, here in zip(cells, served, strict=True)] for cells in table]


def _candidates(before: Mapping[str, str], profile: EngineProfile, device: str | None) -> list[str]:
    row, _ = find_device(profile, device)
    names = dict.fromkeys([*before.values(), *(format.name for format in listed_formats())])
    wanted = []
    for name in names:
        format = parse_format(name)
        width = format.width if isinstance(format, IntFormat) else None
        if row is None or not row.refusals(None, width):
            wanted.append(name)
    return wanted


def _closest(
    units: Sequence[Unit], before: Mapping[str, str], candidates: Sequence[str], profile: EngineProfile
) -> str | None:
    """The format of a tie group: nearest in bytes to what the group takes now."""
    fine = [name for name in candidates if not any(profile.refusals(unit, parse_format(name)) for unit in units)]
    own = {before[unit.name] for unit in units}
    if len(own) == 1 and own <= set(fine):
        return own.pop()
    now = sum(_bytes(before[unit.name], unit.shape) for unit in units)

    def distance(name: str) -> tuple[int, int, bool]:
        size = sum(_bytes(name, unit.shape) for unit in units)
        return abs(size - now), -size, name not in own

    return min(fine, key=distance, default=None)


def _bytes(name: str, shape: tuple[int, int]) -> int:
    return parse_format(name).storage(shape).bytes


def _loss_delta(changed: Sequence[tuple[str, str, str]], table: SensitivityTable) -> float | None:
    """Predicted loss of the changed units, after less before; None when the table does not know one of the choices."""
    rows = {unit.name: i for i, unit in enumerate(table.inventory.units)}
    columns = {name: j for j, name in enumerate(table.formats)}
    deltas = []
    for unit, old, new in changed:
        if unit not in rows or old not in columns or new not in columns:
            return None
        deltas.append(float(table.loss[rows[unit], columns[new]] - table.loss[rows[unit], columns[old]]))
    total = math.fsum(deltas)
    return total if math.isfinite(total) else None
