"""Inventories and plans of miniature models for the engine tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory
from bitwright.core.plan import Plan, PlanModel, PlanUnit, Totals
from bitwright.models import inspect, open_model
from tests.models_inspect.checkpoints import LAYOUTS, write


@cache
def inventory(layout: str) -> Inventory:
    """The inventory of a miniature model; its reference is made independent of the folder."""
    with TemporaryDirectory() as folder:
        found = inspect(open_model(str(write(Path(folder), LAYOUTS[layout]))))
    return Inventory.from_json({**found.to_json(), "ref": layout, "digest": "sha256:" + "0" * 64})


def plan_of(model: Inventory, choice: Mapping[str, str] | Sequence[str]) -> Plan:
    """A plan from a choice by unit name, or by a list of formats that is repeated over the units."""
    if not isinstance(choice, Mapping):
        choice = {unit.name: choice[i % len(choice)] for i, unit in enumerate(model.units)}
    units = tuple(
        PlanUnit(
            name=unit.name, format=choice[unit.name], elements=unit.elements, loss=0.0, shape=unit.shape,
            bytes=parse_format(choice[unit.name]).storage(unit.shape).bytes,
            module=unit.module, layer=unit.layer, expert=unit.expert,
        )
        for unit in model.units
        if unit.name in choice
    )  # fmt: skip
    total = sum(unit.bytes for unit in units)
    return Plan(
        model=PlanModel(ref=model.ref, digest=model.digest, architecture=model.architecture, task=model.task),
        units=units,
        totals=Totals(bits_per_weight=8 * total / model.weights, bytes=total, unquantized_bytes=0, predicted_loss=0.0),
        certificate={},
    )


def tied(model: Inventory, kinds: Sequence[str], formats: Sequence[str]) -> Plan:
    """A plan whose formats change from tie group to tie group."""
    ties = model.tie_ids(kinds)
    order = {tie: i for i, tie in enumerate(dict.fromkeys(ties))}
    return plan_of(model, {u.name: formats[order[t] % len(formats)] for u, t in zip(model.units, ties, strict=True)})
