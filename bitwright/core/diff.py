"""What changed between two plans, unit by unit, and what it costs. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from bitwright.core.errors import InvalidPlan
from bitwright.core.plan import Plan


@dataclass(frozen=True)
class Change:
    """One unit that took another format; deltas are after minus before. None: the unit stands in one plan only."""

    unit: str
    before: str | None
    after: str | None
    bytes_delta: int
    loss_delta: float


@dataclass(frozen=True)
class PlanDiff:
    """changes in the order of the first plan, then units that only the second has; deltas over all units.

    comparable: both plans predict in the same unit from the same sensitivity table, so `loss_delta` means something.
    measured_delta: difference of measured KL, when both plans were measured in the same unit.
    """

    units: int
    changes: tuple[Change, ...]
    bytes_delta: int
    loss_delta: float
    comparable: bool
    measured_delta: float | None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "changes": [asdict(change) for change in self.changes]}


def diff_plans(before: Plan, after: Plan) -> PlanDiff:
    """Compare two plans of one model. Raises InvalidPlan when they share no unit at all."""
    old, new = ({unit.name: unit for unit in plan.units} for plan in (before, after))
    if not old.keys() & new.keys():
        raise InvalidPlan(
            "the plans have no unit in common",
            expected="two plans of one model",
            got=f"{before.model.ref} and {after.model.ref}",
        )
    changes = []
    for name in dict.fromkeys((*old, *new)):
        a, b = old.get(name), new.get(name)
        if a is not None and b is not None and a.format == b.format:
            continue
        size = (b.bytes if b else 0) - (a.bytes if a else 0)
        loss = (b.loss if b else 0.0) - (a.loss if a else 0.0)
        changes.append(Change(name, a.format if a else None, b.format if b else None, size, loss))
    tables = [plan.provenance.get("table") for plan in (before, after)]
    return PlanDiff(
        units=len(old.keys() | new.keys()),
        changes=tuple(changes),
        bytes_delta=after.totals.bytes - before.totals.bytes,
        loss_delta=math.fsum((after.totals.predicted_loss, -before.totals.predicted_loss)),
        comparable=tables[0] == tables[1],
        measured_delta=_measured_delta(before, after),
    )


def _measured_delta(before: Plan, after: Plan) -> float | None:
    a, b = before.measured, after.measured
    if a is None or b is None or a.unit != b.unit:
        return None
    return b.kl - a.kl
