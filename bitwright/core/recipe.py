"""Recipe: a published method as data, one TOML file each: metric + granularity + formats + solver + quantizer."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitwright.core.errors import InvalidInput
from bitwright.core.formats import parse_format
from bitwright.core.mixed_format import PATTERN

#: tensor, expert, row, row:B, column, column:B, group (see core.mixed_format).
Granularity = Annotated[str, Field(pattern=PATTERN, max_length=16)]


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
    paper: str | None = None
    year: int | None = None
    when: str | None = None


def parse_recipe(text: str, *, origin: str) -> Recipe:
    """Raises InvalidInput naming file, line (for TOML errors) or member."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"the recipe {origin} is not valid TOML", got=str(error)) from error
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        member = ".".join(str(part) for part in first["loc"])
        line = next(
            (i for i, row in enumerate(text.splitlines(), 1) if row.strip().startswith(member.split(".")[0])), 1
        )
        raise InvalidInput(
            f"the recipe {origin} is wrong at line {line}, member '{member}'",
            expected=first["msg"],
            got=repr(first.get("input"))[:80],
        ) from error
    for name in recipe.formats:
        parse_format(name)
    return recipe


def load_recipe(path: Path) -> Recipe:
    if not path.is_file():
        raise InvalidInput("there is no such recipe file", got=str(path))
    return parse_recipe(path.read_text("utf-8"), origin=path.name)
