"""Rules that say what a stored tensor is: a unit (Linear) or part of the unquantized rest (Keep). First match wins.

Patterns are regular expressions over the whole tensor name with these groups: `block` (the transformer block's prefix,
without its last dot), `layer` and `expert` (indices). Families are templates over the groups.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Facts:
    """What a rule may ask about the model. tied: the output head shares the embedding's weights."""

    task: str
    tied: bool
    config: Mapping[str, Any]


def always(facts: Facts) -> bool:
    return True


@dataclass(frozen=True)
class Linear:
    """A matrix that gets a choice. stacked: a 3-D tensor (experts, out, in), one unit a matrix.

    families: tie kind to key template (`{block}`, `{expert}`); units of equal key may be tied by an engine.
    """

    pattern: str
    module: str
    families: Mapping[str, str] = field(default_factory=dict)
    stacked: bool = False
    when: Callable[[Facts], bool] = always


@dataclass(frozen=True)
class Keep:
    """A tensor that stays as it is: its role in the coverage report, and the reason."""

    pattern: str
    role: str
    reason: str
    when: Callable[[Facts], bool] = always


@dataclass(frozen=True)
class Match:
    """A rule, its place in the table, and the groups it found."""

    rule: Linear | Keep
    order: int
    groups: Mapping[str, str]

    @property
    def layer(self) -> int | None:
        return int(self.groups["layer"]) if self.groups.get("layer") else None

    @property
    def expert(self) -> int | None:
        return int(self.groups["expert"]) if self.groups.get("expert") else None


@dataclass(frozen=True)
class Architecture:
    """A family of models that share tensor names.

    bare_task: task of the model without a head (`BertModel`). assumed: the warning of a table that guesses.
    tied_default: whether head and embedding share weights when config.json does not say.
    """

    name: str
    model_types: tuple[str, ...]
    rules: tuple[Linear | Keep, ...]
    bare_task: str = "unknown"
    tied_default: bool = False
    assumed: str | None = None

    @cached_property
    def _compiled(self) -> tuple[tuple[re.Pattern[str], Linear | Keep], ...]:
        return tuple((re.compile(rule.pattern), rule) for rule in self.rules)

    def classify(self, name: str, facts: Facts) -> Match | None:
        """The first rule that fits the name, or None."""
        for order, (pattern, rule) in enumerate(self._compiled):
            found = pattern.fullmatch(name)
            if found is not None and rule.when(facts):
                return Match(rule, order, {k: v for k, v in found.groupdict().items() if v is not None})
        return None


NORM = Keep(r".*norm[^.]*\.(?:weight|bias)", "norm", "normalization: a vector a layer, sensitive and tiny")
BIAS = Keep(r".*\.bias", "bias", "a vector; quantizing it saves nothing")


def heads(*names: str) -> tuple[Linear, ...]:
    """Classification heads, planned like any other matrix."""
    return tuple(Linear(rf"{name}\.weight", name) for name in names)
