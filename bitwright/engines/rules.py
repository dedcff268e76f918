"""Rules of an engine profile: which formats are loaded for which class of unit, each with its evidence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bitwright.core.formats import BlockFormat, FloatFormat, IntFormat
from bitwright.core.inventory import Unit

#: dense: in a block; expert: of a mixture; head: outside the blocks (lm_head, classifiers).
UnitClass = Literal["dense", "expert", "head"]


def unit_class(unit: Unit) -> UnitClass:
    """The class that rules speak of."""
    if unit.expert is not None:
        return "expert"
    return "head" if unit.layer is None else "dense"


class Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(Data):
    """Where a line comes from.

    `measured` (run by us), `source` (its code was read), `documented`, `issue`, or `estimate`: a figure of ours that
    nobody measured, chosen on the safe side.
    """

    id: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    kind: Literal["measured", "source", "documented", "issue", "estimate"]
    claim: str = Field(min_length=1, max_length=400)
    source: str = Field(min_length=1, max_length=200)
    version: str = Field(min_length=1, max_length=80)
    date: str = Field(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$")


class Rule(Data):
    classes: tuple[UnitClass, ...] = Field(min_length=1)
    evidence: tuple[str, ...] = Field(min_length=1)


class IntRule(Rule):
    """Integer formats. groups: allowed group sizes, empty = any; multiples bind the unit's (out, in).

    not_under: modules that begin so are not loaded quantized, whatever their class.
    """

    widths: tuple[int, ...] = Field(min_length=1)
    symmetric: tuple[bool, ...] = Field(min_length=1)
    groups: tuple[int, ...] = ()
    channel: bool = True
    group_divides: bool = True
    in_multiple: int = Field(default=1, ge=1)
    out_multiple: int = Field(default=1, ge=1)
    stacked: bool = True
    not_under: tuple[str, ...] = ()

    def refusals(self, unit: Unit, format: IntFormat) -> list[str]:
        """Why this rule does not allow the format; empty when it does."""
        out, inputs = unit.shape
        checks = (
            (format.plain, "only 2^bits levels, float16 scales of rows or groups"),
            (format.width in self.widths, f"widths here are {_listed(self.widths)}, not {format.width}"),
            (
                format.symmetric in self.symmetric,
                f"only {'symmetric' if self.symmetric == (True,) else 'asymmetric'} formats",
            ),
            *self._group_checks(unit, format),
            (inputs % self.in_multiple == 0, f"{inputs} inputs are no multiple of {self.in_multiple}"),
            (out % self.out_multiple == 0, f"{out} outputs are no multiple of {self.out_multiple}"),
            (self.stacked or unit.index is None, "stacked expert tensors are not loaded quantized"),
            (
                not (self.not_under and unit.module.startswith(self.not_under)),
                f"{unit.module} is stored under a name it does not look for",
            ),
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


class BlockRule(Rule):
    """Formats of bytes in blocks, by name. whole: the block must divide the unit's inputs."""

    formats: tuple[str, ...] = Field(min_length=1)
    whole: bool = True

    def refusals(self, unit: Unit, format: BlockFormat) -> list[str]:
        """Why this rule does not allow the format; empty when it does."""
        if format.name not in self.formats:
            return [f"the format {format.name} is not loaded"]
        inputs = unit.shape[1]
        if self.whole and inputs % format.block:
            return [f"blocks of {format.block} do not divide the {inputs} inputs"]
        return []


class FloatRule(Rule):
    """Pass-through formats: the unit stays unquantized. stacked_only: where one tensor holds all experts of a block."""

    formats: tuple[str, ...] = Field(min_length=1)
    stacked_only: bool = False

    def allows(self, unit: Unit, format: FloatFormat) -> bool:
        fits = unit.index is not None or not self.stacked_only
        return fits and unit_class(unit) in self.classes and format.name in self.formats


def _listed(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in values)
