"""The inventory that a plan alone tells of: units with their ties, without the model's files."""

from __future__ import annotations

import re

from bitwright.core.errors import InvalidPlan
from bitwright.core.inventory import Inventory, Unit
from bitwright.core.plan import Plan, PlanUnit
from bitwright.models.architectures import ARCHITECTURES, UNKNOWN, Architecture, Facts, Linear

_STACKED = re.compile(r"(?P<tensor>.+)\[(?P<index>[0-9]+)\]")


def inventory_of(plan: Plan) -> Inventory:
    """Units of a plan as `inspect` would list them: families from the architecture whose names they bear.

    Nothing is known of the rest of the model: `rest` is empty. Raises InvalidPlan for a unit without its shape.
    """
    facts = Facts(plan.model.task, False, {})
    architecture = next((a for a in ARCHITECTURES if _fits(a, plan, facts)), UNKNOWN)
    units = tuple(_unit(row, architecture, facts) for row in plan.units)
    layers = 1 + max((unit.layer for unit in units if unit.layer is not None), default=-1)
    return Inventory(
        ref=plan.model.ref, digest=plan.model.digest, architecture=plan.model.architecture,
        model_type=architecture.name, task=plan.model.task, layers=layers, units=units, rest=(),
        warnings=("made from the plan alone: the unquantized rest of the model is not known",),
    )  # fmt: skip


def _split(name: str) -> tuple[str, int | None]:
    match = _STACKED.fullmatch(name)
    return (name, None) if match is None else (match["tensor"], int(match["index"]))


def _fits(architecture: Architecture, plan: Plan, facts: Facts) -> bool:
    found = (architecture.classify(_split(unit.name)[0], facts) for unit in plan.units)
    return all(match is not None and isinstance(match.rule, Linear) for match in found)


def _unit(row: PlanUnit, architecture: Architecture, facts: Facts) -> Unit:
    if row.shape is None or len(row.shape) != 2:
        raise InvalidPlan(f"{row.name}: the plan does not say the unit's shape", hint="plan again, or add --model")
    tensor, index = _split(row.name)
    match = architecture.classify(tensor, facts)
    expert = row.expert if row.expert is not None else index
    layer, module, families = row.layer, row.module or "", {}
    if match is not None and isinstance(match.rule, Linear):
        expert = match.expert if index is None else index
        groups = {**match.groups, "expert": str(expert)}
        layer, module = match.layer, match.rule.module.format_map(groups)
        families = {kind: template.format_map(groups) for kind, template in match.rule.families.items()}
    return Unit(row.name, tensor, (row.shape[0], row.shape[1]), "F16", module, index, layer, expert, families)
