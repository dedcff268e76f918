"""Units and formats of an inventory as plan units, for the configs that exporters write."""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.core.formats import Format
from bitwright.core.inventory import Unit
from bitwright.core.plan import PlanUnit


def plan_units(units: Sequence[Unit], formats: Sequence[Format]) -> tuple[PlanUnit, ...]:
    """One row a unit; losses are not known here."""
    return tuple(
        PlanUnit(
            name=unit.name, format=format.name, elements=unit.elements, bytes=format.storage(unit.shape).bytes,
            loss=0.0, shape=unit.shape, module=unit.module, layer=unit.layer, expert=unit.expert,
        )
        for unit, format in zip(units, formats, strict=True)
    )  # fmt: skip
