"""Engine profile: which formats an engine loads for which class of unit, and what it ties. Data, not code.

Unknown means refused: a format is allowed only where a rule says so, and every rule names its evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from bitwright.core.formats import BlockFormat, FloatFormat, Format, IntFormat, MixedFormat, parse_format
from bitwright.core.inventory import Inventory, TieKind, Unit
from bitwright.engines.facts import Device, Experts, KvCache, Memory, Names, Never, Silent
from bitwright.engines.rules import BlockRule, Data, Evidence, FloatRule, IntRule, unit_class


class EngineProfile(Data):
    """One engine and version range. `container`: what `execute` writes for it, if bitwright can; `export`: its syntax.

    since, before: engine versions that the data holds for (`since` included, `before` not; None = open).
    tie_kinds: families of units (core.inventory.Unit.families) that must share a format.
    """

    profile: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    aliases: tuple[str, ...] = ()
    title: str
    version: str
    since: str = Field(pattern=r"^[0-9]+(\.[0-9]+){0,3}$", description="oldest engine version that this data is for")
    before: str | None = Field(default=None, pattern=r"^[0-9]+(\.[0-9]+){0,3}$")
    revision: str = Field(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$", description="date of this data")
    container: str | None = None
    export: str | None = None
    default_group: int = Field(default=64, ge=1)
    tie_kinds: tuple[TieKind, ...] = ()
    tie_evidence: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ints: tuple[IntRule, ...] = ()
    blocks: tuple[BlockRule, ...] = ()
    floats: tuple[FloatRule, ...] = ()
    menu: tuple[str, ...] = Field(default=(), description="formats to plan with when nobody names any")
    names: Names
    experts: Experts
    never: tuple[Never, ...] = ()
    silent: tuple[Silent, ...] = ()
    kv_cache: tuple[KvCache, ...] = ()
    memory: Memory | None = None
    devices: tuple[Device, ...] = Field(min_length=1)
    evidence: tuple[Evidence, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _evidence_exists(self) -> EngineProfile:
        known, used = {line.id for line in self.evidence}, set(self.used_evidence())
        if used - known or (self.tie_kinds and not self.tie_evidence):
            raise ValueError(f"evidence is missing: {sorted(used - known) or 'of the ties'}")
        named = [name for rule in self.floats for name in rule.formats]
        named += [name for rule in self.blocks for name in rule.formats]
        for name in (*self.menu, *named):
            parse_format(name)
        return self

    def used_evidence(self) -> Iterator[str]:
        """The evidence that each line names."""
        yield from self.tie_evidence
        rules = (
            *self.ints,
            *self.blocks,
            *self.floats,
            self.names,
            self.experts,
            *self.never,
            *self.silent,
            *self.kv_cache,
        )
        for rule in (*rules, *self.devices, *(() if self.memory is None else (self.memory,))):
            yield from rule.evidence

    def covers(self, version: str) -> bool:
        """Whether the data holds for this version of the engine."""
        try:
            asked = tuple(int(part) for part in version.split("."))
        except ValueError:
            return False
        least = tuple(int(part) for part in self.since.split("."))
        most = None if self.before is None else tuple(int(part) for part in self.before.split("."))
        return least <= asked and (most is None or asked < most)

    @property
    def symmetric_only(self) -> bool:
        return all(rule.symmetric == (True,) for rule in self.ints)

    @property
    def symmetric_menu(self) -> bool:
        """Whether to plan with symmetric formats when nobody names any: asymmetric ones are not served everywhere."""
        return not all(False in rule.symmetric for rule in self.ints)

    def refusals(self, unit: Unit, format: Format) -> list[str]:
        """Every reason why this engine does not load the unit in this format; empty when it does."""
        kind = unit_class(unit)
        if isinstance(format, MixedFormat):
            return ["it loads one format a tensor; parts in formats of their own are held by `packed` alone"]
        if isinstance(format, FloatFormat):
            fine = any(rule.allows(unit, format) for rule in self.floats)
            return [] if fine else [f"{format.name} is not loaded for units of class '{kind}'"]
        found = self._rule_refusals(unit, format, kind)
        if any(not reasons for reasons in found):
            return []
        if found:
            return min(found, key=len)
        known = [rule for rule in (*self.ints, *self.blocks) if kind in rule.classes]
        if not known:
            return [f"units of class '{kind}' stay unquantized"]
        return [f"the format {format.label} is not known to this profile"]

    def _rule_refusals(self, unit: Unit, format: Format, kind: str) -> list[list[str]]:
        """What each rule for this class of unit and kind of format has against it."""
        if isinstance(format, IntFormat):
            return [rule.refusals(unit, format) for rule in self.ints if kind in rule.classes]
        if isinstance(format, BlockFormat):
            return [rule.refusals(unit, format) for rule in self.blocks if kind in rule.classes]
        return []

    def allowed(self, inventory: Inventory, formats: Sequence[str]) -> list[list[bool]]:
        """(units, formats): whether the engine loads each unit in each format."""
        parsed = [parse_format(name) for name in formats]
        rows: dict[tuple[object, ...], list[bool]] = {}
        table = []
        for unit in inventory.units:
            key = (unit_class(unit), unit.shape, unit.index is None)
            if key not in rows:
                rows[key] = [not self.refusals(unit, format) for format in parsed]
            table.append(rows[key])
        return table

    def menus(self, inventory: Inventory, formats: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Unit name to those of `formats` that the engine loads for it, in the given order."""
        table = self.allowed(inventory, formats)
        return {
            unit.name: tuple(name for name, fine in zip(formats, row, strict=True) if fine)
            for unit, row in zip(inventory.units, table, strict=True)
        }

    def describe(self) -> dict[str, object]:
        """For catalogs and people."""
        widths = sorted({width for rule in self.ints for width in rule.widths})
        return {
            "name": self.name, "aliases": list(self.aliases), "title": self.title, "version": self.version,
            "since": self.since, "before": self.before, "revision": self.revision,
            "widths": widths, "blocks": [name for rule in self.blocks for name in rule.formats],
             "symmetric_only": self.symmetric_only,
            "ties": list(self.tie_kinds), "container": self.container, "export": self.export, "notes": list(self.notes),
            "experts": self.experts.rule, "names": self.names.map,
            "devices": [device.name for device in self.devices],
            "kv_cache": sorted({row.format for row in self.kv_cache}),
        }  # fmt: skip
