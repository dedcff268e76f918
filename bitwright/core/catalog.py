"""The one kind of catalog: an ordered tuple of entries whose code is imported only when used.

Solvers, metrics, quantizers, layouts, containers, engines and recipes each have a `catalog.py` holding one
`Catalog`. Adding a member is one file plus one line there. Listing a catalog imports nothing heavy.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bitwright.core.errors import UnknownName, Unsupported


@dataclass(frozen=True, eq=False)
class Entry:
    """One member: `target` is "module:attribute"; `needs` names the import packages that must be installed."""

    name: str
    target: str
    summary: str
    needs: tuple[str, ...] = ()
    traits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def available(self) -> bool:
        return all(importlib.util.find_spec(package) is not None for package in self.needs)

    def load(self) -> Any:
        if not self.available:
            missing = [p for p in self.needs if importlib.util.find_spec(p) is None]
            raise Unsupported(
                f"'{self.name}' needs packages that are not installed",
                got=f"missing: {', '.join(missing)}",
                hint=f"pip install {' '.join(missing)}",
            )
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "summary": self.summary, "available": self.available, **dict(self.traits)}


class Catalog:
    """An ordered, immutable collection of entries of one kind; order is preference."""

    def __init__(self, kind: str, entries: tuple[Entry, ...]) -> None:
        self.kind = kind
        self._entries = {entry.name: entry for entry in entries}
        self._loaded: dict[str, Any] = {}
        if len(self._entries) != len(entries):
            raise ValueError(f"two {kind} entries share a name")

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def get(self, name: str) -> Entry:
        if name in self._entries:
            return self._entries[name]
        raise unknown_name(self.kind, name, self.names())

    def load(self, name: str) -> Any:
        """What the entry of that name stands for, imported on its first use. Raises UnknownName and Unsupported."""
        if name not in self._loaded:
            self._loaded[name] = self.get(name).load()
        return self._loaded[name]


def unknown_name(kind: str, name: str, known: tuple[str, ...], place: str = "") -> UnknownName:
    """The error for a name that is not in a catalog, with the nearest known names. place: where it was read."""
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of: {', '.join(known)}"
    return UnknownName(
        f"there is no {kind} of that name" + (f" ({place})" if place else ""),
        expected=f"one of {', '.join(known)}",
        got=repr(name),
        hint=hint,
    )
