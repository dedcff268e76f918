"""Job `execute`: a plan becomes a checkpoint, read back and compared before it counts as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.core.errors import InvalidPlan
from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory
from bitwright.core.plan import Plan, plan_from_json
from bitwright.core.requests import ExecuteRequest
from bitwright.models import ModelSource
from quantizers.containers.base import Container, Made
from quantizers.containers.catalog import CONTAINERS
from worker.steps.context import Context
from worker.steps.execute_parts import make_in_parts
from worker.steps.quantizing import Maker, planned_quantizer, units_context
from worker.steps.served import file_words


def run(request: ExecuteRequest, context: Context) -> dict[str, Any]:
    plan = plan_from_json(request.plan)
    source, inventory = context.open(request.model)
    context = context.for_model(inventory)
    maker = planned_quantizer(plan, request.calibration, source, inventory, context)
    checkpoint = write_checkpoint(source, inventory, plan, request.to, maker, context, request.calibration)
    return {"checkpoint": checkpoint, "plan_digest": plan.digest}


def match(plan: Plan, inventory: Inventory) -> tuple[Inventory, list[str]]:
    """(the inventory that the plan plans, format names in its order).

    Raises InvalidPlan for a plan of another model or of other units.
    """
    if plan.model.digest != inventory.digest:
        raise InvalidPlan(
            "the plan was made for another model", expected=plan.model.digest, got=inventory.digest,
            hint=f"the plan names {plan.model.ref}; plan this model again",
        )  # fmt: skip
    formats = plan.formats()
    kept = {unit.name for unit in inventory.units if unit.tensor in plan.kept}
    inventory = inventory.keep(kept, f"kept by the plan for {plan.engine}") if kept else inventory
    units = {unit.name for unit in inventory.units}
    missing, extra = sorted(units - formats.keys()), sorted(formats.keys() - units)
    if missing or extra:
        raise InvalidPlan(
            "the plan's units are not the model's units",
            got=f"{len(missing)} missing (first: {missing[:1]}), {len(extra)} unknown (first: {extra[:1]})",
        )
    return inventory, [formats[unit.name] for unit in inventory.units]


def write_checkpoint(
    source: ModelSource,
    inventory: Inventory,
    plan: Plan,
    to: str,
    maker: Maker,
    context: Context,
    calibration: str | None,
) -> dict[str, Any]:
    """Write, read back, compare. The folder appears under its final name only when all of it is right.

    calibration: reference of the text that the quantizer reads, for workers that make a part.
    """
    inventory, names = match(plan, inventory)
    _require_true_bytes(plan, inventory, names)
    container: Container = CONTAINERS.load(to)
    out = context.out_dir or context.settings.checkpoint_dir / f"{plan.digest.removeprefix('sha256:')[:16]}-{to}"
    made: dict[int, Made] = {}
    parts: list[Path] = []
    if not out.exists():
        container.predict(inventory, [parse_format(name) for name in names], source=source)  # refused before it is cut
        made, parts = make_in_parts(plan, calibration, inventory, container, maker, context)
    report = container.write(
        source,
        inventory,
        [parse_format(name) for name in names],
        Path(out),
        quantizer=maker.name,
        plan_json=_told(plan, maker),
        progress=context.progress,
        context=units_context(maker),
        context_key=maker.context_key,
        made=made,
    )
    for part in parts:
        context.blobs.remove(part)
    said = (*maker.warnings(inventory), *file_words(dict(plan.formats()), inventory, to))
    return {"container": to, **report.to_json(), "warnings": list(said)}


def _told(plan: Plan, maker: Maker) -> dict[str, Any]:
    """The plan as the checkpoint tells it: with the device that made codes which the CPU could make otherwise."""
    told = plan.to_json()
    return told if maker.device is None else {**told, "provenance": {**told["provenance"], "made_on": maker.device}}


def _require_true_bytes(plan: Plan, inventory: Inventory, names: list[str]) -> None:
    """A checkpoint is compared with its plan, so the plan must state what its own formats take. Raises InvalidPlan."""
    stated = {unit.name: unit.bytes for unit in plan.units}
    for unit, name in zip(inventory.units, names, strict=True):
        exact = parse_format(name).storage(unit.shape).bytes
        if stated[unit.name] != exact:
            raise InvalidPlan(
                f"the plan states other bytes than {name} takes for {unit.name}",
                expected=f"{exact} bytes", got=f"{stated[unit.name]} bytes",
                hint="somebody changed the plan: `bitwright verify` says what; plan again",
            )  # fmt: skip
    total = sum(stated.values())
    if plan.totals.bytes != total:
        raise InvalidPlan(
            "the plan's total is not the sum of its units", expected=str(total), got=str(plan.totals.bytes)
        )
