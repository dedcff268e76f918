"""Before a job starts: does this engine load this plan? Yes, or every reason why not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bitwright.core.errors import UnknownName
from bitwright.core.formats import IntFormat, parse_format
from bitwright.core.inventory import Inventory
from bitwright.core.plan import Plan
from bitwright.engines.facts import Device, parse_device
from bitwright.engines.profile import EngineProfile


@dataclass(frozen=True)
class Reason:
    """Why a plan would not load. unit: the unit's name, or None when the plan as a whole is meant."""

    unit: str | None
    message: str

    def __str__(self) -> str:
        return self.message if self.unit is None else f"{self.unit}: {self.message}"


def preflight(
    plan: Plan | Mapping[str, str], inventory: Inventory, profile: EngineProfile, *, device: str | None = None
) -> list[Reason]:
    """Every reason why `profile` would not load the plan (or a mapping of unit name to format); empty = it loads.

    device: `cpu`, `metal`, `cuda` or `cuda:8.0` (compute capability); None asks for any. Raises UnknownName.
    """
    choice = plan.formats() if isinstance(plan, Plan) else dict(plan)
    reasons = list(_identity(plan, inventory)) if isinstance(plan, Plan) else []
    found, capability = find_device(profile, device)
    if device is not None and found is None:
        names = ", ".join(row.name for row in profile.devices)
        reasons.append(Reason(None, f"{profile.title} is known to run on {names}, not on {device}"))
    return [
        *reasons,
        *_turned(inventory),
        *_units(choice, inventory),
        *_formats(choice, inventory, profile),
        *_ties(choice, inventory, profile),
        *_device(choice, inventory, found, capability),
    ]


def find_device(profile: EngineProfile, device: str | None) -> tuple[Device | None, str | None]:
    """(the profile's line for that device, the compute capability asked for). Raises UnknownName."""
    if device is None:
        return None, None
    asked = parse_device(device)
    if asked is None:
        raise UnknownName("the device cannot be read", expected="cpu, metal, cuda or cuda:8.0", got=repr(device)[:40])
    return next((row for row in profile.devices if row.name == asked[0]), None), asked[1]


def _turned(inventory: Inventory) -> Iterator[Reason]:
    if inventory.turned:
        yield Reason(None, "its matrices are stored as (in, out), and groups would run along the outputs")


def _device(
    choice: Mapping[str, str], inventory: Inventory, device: Device | None, capability: str | None
) -> Iterator[Reason]:
    if device is None:
        return
    yield from (Reason(None, why) for why in device.refusals(capability, None))
    for unit in inventory.units:
        format = parse_format(choice[unit.name]) if unit.name in choice else None
        if isinstance(format, IntFormat):
            yield from (Reason(unit.name, why) for why in device.refusals(None, format.width))


def _identity(plan: Plan, inventory: Inventory) -> Iterator[Reason]:
    if plan.model.digest != inventory.digest:
        yield Reason(None, f"the plan is for another model: {plan.model.digest}, not {inventory.digest}")


def _units(choice: Mapping[str, str], inventory: Inventory) -> Iterator[Reason]:
    names = {unit.name for unit in inventory.units}
    yield from (Reason(name, "the plan gives no format to this unit") for name in sorted(names - choice.keys()))
    yield from (Reason(name, "the model has no such unit") for name in sorted(choice.keys() - names))


def _formats(choice: Mapping[str, str], inventory: Inventory, profile: EngineProfile) -> Iterator[Reason]:
    for unit in inventory.units:
        name = choice.get(unit.name)
        for why in profile.refusals(unit, parse_format(name)) if name is not None else ():
            yield Reason(unit.name, f"{name} does not load: {why}")


def _ties(choice: Mapping[str, str], inventory: Inventory, profile: EngineProfile) -> Iterator[Reason]:
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for unit, tie in zip(inventory.units, inventory.tie_ids(profile.tie_kinds), strict=True):
        groups[tie].append(unit.name)
    for names in groups.values():
        formats = {choice[name] for name in names if name in choice}
        if len(formats) > 1:
            others = f" and {len(names) - 1} more" if len(names) > 2 else f" and {names[1]}"
            yield Reason(names[0] + others, f"must share one format, but have {', '.join(sorted(formats))}")
