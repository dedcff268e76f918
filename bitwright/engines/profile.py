"""Engine profile: which formats an engine loads for which class of unit, and what it ties. Data, not code.

Unknown means refused: a format is allowed only where a rule says so, and every rule names its evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bitwright.core.formats import FloatFormat, Format, IntFormat, parse_format
from bitwright.core.inventory import Inventory, Unit

#: dense: in a block; expert: of a mixture; head: outside the blocks (lm_head, classifiers).
UnitClass = Literal["dense", "expert", "head"]
TieKind = Literal["qkv", "gate_up", "experts", "all_experts", "expert", "expert_role"]


def unit_class(unit: Unit) -> UnitClass:
    """The class that rules speak of."""
    if unit.expert is not None:
        return "expert"
    return "head" if unit.layer is None else "dense"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(_Data):
    """Where a line comes from: `measured` (run by us), `source` (its code was read), `documented` or `issue`."""

    id: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    kind: Literal["measured", "source", "documented", "issue"]
    claim: str = Field(min_length=1, max_length=400)
    source: str = Field(min_length=1, max_length=200)
    version: str = Field(min_length=1, max_length=80)
    date: str = Field(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$")


class _Rule(_Data):
    classes: tuple[UnitClass, ...] = Field(min_length=1)
    evidence: tuple[str, ...] = Field(min_length=1)


class IntRule(_Rule):
    """Integer formats. groups: allowed group sizes, empty = any; multiples bind the unit's (out, in)."""

    widths: tuple[int, ...] = Field(min_length=1)
    symmetric: tuple[bool, ...] = Field(min_length=1)
    groups: tuple[int, ...] = ()
    channel: bool = True
    group_divides: bool = True
    in_multiple: int = Field(default=1, ge=1)
    out_multiple: int = Field(default=1, ge=1)
    stacked: bool = True

    def refusals(self, unit: Unit, format: IntFormat) -> list[str]:
        """Why this rule does not allow the format; empty when it does."""
        out, inputs = unit.shape
        checks = (
            (format.width in self.widths, f"widths here are {_listed(self.widths)}, not {format.width}"),
            (
                format.symmetric in self.symmetric,
                f"only {'symmetric' if self.symmetric == (True,) else 'asymmetric'} formats",
            ),
            *self._group_checks(unit, format),
            (inputs % self.in_multiple == 0, f"{inputs} inputs are no multiple of {self.in_multiple}"),
            (out % self.out_multiple == 0, f"{out} outputs are no multiple of {self.out_multiple}"),
            (self.stacked or unit.index is None, "stacked expert tensors are not loaded quantized"),
        )
        return [why for fine, why in checks if not fine]

    def _group_checks(self, unit: Unit, format: IntFormat) -> list[tuple[bool, str]]:
        """A group longer than the row is stored as per channel, where the engine has that.

        Not for experts: their matrices differ in inputs but are loaded fused, by one scheme.
        """
        group, inputs = format.group, unit.shape[1]
        if self.channel and group is not None and group > inputs and unit.expert is None:
            return []
        if group is None:
            return [(self.channel, "no per-channel scales")]
        return [
            (not self.groups or group in self.groups, f"groups here are {_listed(self.groups)}, not {group}"),
            (not self.group_divides or inputs % group == 0, f"the group {group} does not divide the {inputs} inputs"),
        ]


class FloatRule(_Rule):
    """Pass-through formats: the unit stays unquantized. stacked_only: where one tensor holds all experts of a block."""

    formats: tuple[str, ...] = Field(min_length=1)
    stacked_only: bool = False

    def allows(self, unit: Unit, format: FloatFormat) -> bool:
        fits = unit.index is not None or not self.stacked_only
        return fits and unit_class(unit) in self.classes and format.name in self.formats


class EngineProfile(_Data):
    """One engine and version range. `container`: what `execute` writes for it, if bitwright can; `export`: its syntax.

    tie_kinds: families of units (core.inventory.Unit.families) that must share a format.
    """

    profile: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    aliases: tuple[str, ...] = ()
    title: str
    version: str
    revision: str = Field(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$", description="date of this data")
    container: str | None = None
    export: str | None = None
    default_group: int = Field(default=64, ge=1)
    tie_kinds: tuple[TieKind, ...] = ()
    tie_evidence: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ints: tuple[IntRule, ...] = ()
    floats: tuple[FloatRule, ...] = ()
    evidence: tuple[Evidence, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _evidence_exists(self) -> EngineProfile:
        known = {line.id for line in self.evidence}
        rules: tuple[_Rule, ...] = (*self.ints, *self.floats)
        used = {name for rule in rules for name in rule.evidence} | set(self.tie_evidence)
        if used - known or (self.tie_kinds and not self.tie_evidence):
            raise ValueError(f"evidence is missing: {sorted(used - known) or 'of the ties'}")
        for rule in self.floats:
            for name in rule.formats:
                parse_format(name)
        return self

    @property
    def symmetric_only(self) -> bool:
        return all(rule.symmetric == (True,) for rule in self.ints)

    def refusals(self, unit: Unit, format: Format) -> list[str]:
        """Every reason why this engine does not load the unit in this format; empty when it does."""
        kind = unit_class(unit)
        if isinstance(format, FloatFormat):
            fine = any(rule.allows(unit, format) for rule in self.floats)
            return [] if fine else [f"{format.name} is not loaded for units of class '{kind}'"]
        if not isinstance(format, IntFormat):
            return [f"the format {format.name} is not known to this profile"]
        rules = [rule for rule in self.ints if kind in rule.classes]
        found = [rule.refusals(unit, format) for rule in rules]
        if any(not reasons for reasons in found):
            return []
        return min(found, key=len) if found else [f"units of class '{kind}' stay unquantized"]

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

    def menu(self, inventory: Inventory, formats: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
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
            "revision": self.revision, "widths": widths, "symmetric_only": self.symmetric_only,
            "ties": list(self.tie_kinds), "container": self.container, "export": self.export, "notes": list(self.notes),
        }  # fmt: skip


def _listed(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in values)
