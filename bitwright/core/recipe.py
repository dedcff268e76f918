"""Recipe: a published method as data, one TOML file each: metric + granularity + formats + solver + quantizer."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bitwright.core.catalog import unknown_name
from bitwright.core.errors import InvalidInput, UnknownName
from bitwright.core.formats import parse_format
from bitwright.core.inventory import TieKind
from bitwright.core.mixed_format import PATTERN

#: tensor, expert, row, row:B, column, column:B, group (see core.mixed_format).
Granularity = Annotated[str, Field(pattern=PATTERN, max_length=16)]


class _Line(BaseModel):
    """Which units a line speaks of: of these classes, of modules that match one of these patterns, in these layers.

    A member that is left out takes every unit. modules: shell patterns on the role, such as `self_attn.*`. layers:
    indices from the first (0, 1, ...) or from the last (-1, -2, ...).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[Literal["dense", "expert", "head"], ...] = ()
    modules: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    formats: tuple[str, ...] = Field(min_length=1)


class MenuLine(_Line):
    """These units take one of these formats only. Of several lines that speak of a unit the first holds."""


class RuleLine(_Line):
    """In every layer (or once over the model), at least / at most so many choices among these units take these formats.

    Units that share a format by a tie count once: with granularity `expert`, an expert is one choice.
    """

    each: Literal["layer", "model"] = "layer"
    at_least: int | None = Field(default=None, ge=1)
    at_most: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _bounded(self) -> RuleLine:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a rule needs at_least or at_most")
        return self


class Pruning(BaseModel):
    """Experts that a model goes without while it runs (sensitivity.pruning): a way to evaluate, not to store.

    importance: "received" sums the attention that a token receives, "compat" is what the authors' code does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protect: float = Field(
        default=0.02, ge=0, le=1, description="share of each sequence's tokens that keep all experts"
    )
    importance: Literal["received", "compat"] = Field(default="received", description="what ranks tokens to protect")


class Recipe(BaseModel):
    """Every member has the meaning it has on the command line; options are handed to the named catalog entry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    summary: str = Field(max_length=400)
    metric: str = "fisher"
    metric_options: dict[str, Any] = Field(default_factory=dict)
    granularity: Granularity = "tensor"
    formats: tuple[str, ...] = ()
    solver: str = "auto"
    quantizer: str = "rtn"
    quantizer_options: dict[str, Any] = Field(default_factory=dict)
    ties: tuple[TieKind, ...] = Field(
        default=(), description="families of units that share a format, besides the engine's"
    )
    menus: tuple[MenuLine, ...] = ()
    rules: tuple[RuleLine, ...] = ()
    spread: Literal["model", "layer"] = Field(
        default="model", description="layer: every layer gets its share of the budget, by what its weights weigh"
    )
    requires: tuple[Literal["experts"], ...] = Field(default=(), description="what a model must have")
    pruning: Pruning | None = Field(default=None, description="what `evaluate --prune-experts` does to its plans")
    paper: str | None = None
    year: int | None = None
    allocates: str | None = Field(default=None, max_length=200, description="what gets a choice of its own")
    cost: str | None = Field(default=None, max_length=200, description="passes over the calibration data")
    when: str | None = None

    def format_names(self) -> tuple[str, ...]:
        """Every format that the recipe names, the menu's first: the columns that its table needs."""
        lines = (*self.menus, *self.rules)
        return tuple(dict.fromkeys([*self.formats, *(name for line in lines for name in line.formats)]))


def parse_recipe(text: str, *, origin: str, known: Mapping[str, Collection[str]] | None = None) -> Recipe:
    """Raises InvalidInput naming file, line and member, and UnknownName for a format that does not exist.

    known: the names that the members metric, solver and quantizer may have, by member; nothing is checked without.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"the recipe {origin} is not valid TOML", got=str(error)) from error
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise InvalidInput(
            f"the recipe {origin} is wrong at line {line_of(text, first['loc'])}, member "
            f"'{'.'.join(str(part) for part in first['loc'])}'",
            expected=first["msg"].replace("a valid tuple", "a list"),
            got=repr(first.get("input"))[:80],
        ) from error
    for member, names in (known or {}).items():
        if getattr(recipe, member) not in names:
            place = f"{origin} line {line_of(text, (member,))}"
            raise unknown_name(member, getattr(recipe, member), tuple(names), place)
    _check_formats(text, recipe, origin)
    if recipe.menus and not recipe.formats:
        raise InvalidInput(
            f"the recipe {origin} fixes formats of some units but names no menu for the others",
            expected="formats = [...] beside [[menus]]", got="no formats",
        )  # fmt: skip
    return recipe


def _check_formats(text: str, recipe: Recipe, origin: str) -> None:
    for name in recipe.format_names():
        try:
            parse_format(name)
        except UnknownName as error:
            place = next((i for i, row in enumerate(text.splitlines(), 1) if f'"{name}"' in row), 1)
            raise UnknownName(
                f"there is no format of that name ({origin} line {place})", expected=error.expected, got=error.got,
                hint="`bitwright formats` lists examples",
            ) from error  # fmt: skip


def line_of(text: str, location: Sequence[str | int]) -> int:
    """The line that a member stands in, from 1: `("rules", 1, "at_least")` is in the second [[rules]]; 1 if nowhere."""
    rows = [row.strip() for row in text.splitlines()]
    found = start = 0
    for part, following in zip(location, [*location[1:], None], strict=True):
        if isinstance(part, int):
            continue
        number = following if isinstance(following, int) else None
        head = f"[{part}]" if number is None else f"[[{part}]]"
        tables = [i for i, row in enumerate(rows) if row.startswith(head)]
        members = [i for i in range(start, len(rows)) if re.match(rf"{re.escape(part)}\s*=", rows[i])]
        if tables:
            found = tables[min(number or 0, len(tables) - 1)]
            start = found + 1
        elif members:
            found = start = members[0]
    return found + 1


def load_recipe(path: Path, *, known: Mapping[str, Collection[str]] | None = None) -> Recipe:
    """The recipe in a TOML file. Raises InvalidInput for a file that is missing or not text, and as `parse_recipe`."""
    if not path.is_file():
        raise InvalidInput("there is no such recipe file", got=str(path))
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise InvalidInput(
            f"the recipe {path.name} is not text at line {line}", expected="TOML in UTF-8", got=error.reason
        ) from error
    return parse_recipe(text, origin=path.name, known=known)
