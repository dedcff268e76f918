"""GPTQ checkpoints: base settings and GPTQModel's `dynamic` (research/04 section 5.2).

Keys are regular expressions: `-:` skips, `+:` or nothing overrides; negatives first, the first match wins, matched from
the left. Patterns come from a file, so only a plain subset is run: names, escaped dots, alternatives, digits, anchors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.inventory import Inventory
from bitwright.engines.names import unfused_experts
from quantizers.importers.base import (
    Imported,
    Importer,
    int_format,
    left_alone,
    module_of,
    quantization_of,
    read_json,
    stored_names,
)

#: No repetition of groups: such patterns can take exponential time.
_PLAIN = re.compile(r"\^?(?:[A-Za-z0-9_.|()\[\]-]|\\[.d]\+?|\.\*|\[[0-9-]+\]\+?)*\$?")
_REPEATED_GROUP = re.compile(r"\)[*+{?]")


def _config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        return {}
    found = quantization_of(path)
    return found if found.get("quant_method") == "gptq" else read_json(path / "quantize_config.json")


def recognizes(path: Path) -> bool:
    config = _config(path)
    return config.get("quant_method", "gptq") == "gptq" and "bits" in config


def read(path: Path, inventory: Inventory) -> Imported:
    """A module is quantized where the files hold its `qweight`; `dynamic` says how. Raises Unsupported."""
    config, names = _config(path), stored_names(path)
    rules = _rules(config.get("dynamic") or {})
    found: dict[str, str] = {}
    for unit in inventory.units:
        module = unfused_experts(module_of(unit))
        if f"{module}.qweight" not in names:
            module = module_of(unit)
        settings = next((fields for pattern, fields in rules if pattern.match(module)), {})
        if settings is None or f"{module}.qweight" not in names:
            found[unit.name] = left_alone(unit)
            continue
        own = {**config, **settings}
        found[unit.name] = int_format(unit, own.get("bits"), own.get("group_size", -1), own.get("sym", True))
    return Imported(found)


def _rules(dynamic: Mapping[str, Any]) -> list[tuple[re.Pattern[str], Mapping[str, Any] | None]]:
    """(pattern, overrides), None for a skip; negatives first."""
    if not isinstance(dynamic, dict):
        raise InvalidModel("`dynamic` is no object", expected="patterns and settings", got=type(dynamic).__name__)
    rules: list[tuple[re.Pattern[str], Mapping[str, Any] | None]] = []
    for skip in (True, False):
        for key, fields in dynamic.items():
            if key.startswith("-:") != skip:
                continue
            text = key.removeprefix("-:").removeprefix("+:")
            if len(text) > 1024 or not _PLAIN.fullmatch(text) or _REPEATED_GROUP.search(text):
                raise Unsupported(
                    "a pattern of `dynamic` is not run", expected="a plain pattern", got=ascii(text)[:120]
                )
            try:
                pattern = re.compile(text)
            except re.error as error:
                raise Unsupported("a pattern of `dynamic` is none", got=f"{ascii(text)[:80]}: {error}") from error
            rules.append((pattern, None if skip else fields if isinstance(fields, dict) else {}))
    return rules


IMPORTER = Importer(recognizes, read)
