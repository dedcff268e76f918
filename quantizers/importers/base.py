"""What importers share: bounded readers of a checkpoint's config and tensor names, and formats from settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory, Unit
from bitwright.models.config import read_config
from bitwright.models.files import read_bounded
from bitwright.models.limits import DEFAULT_LIMITS
from bitwright.models.shards import read_weights
from bitwright.models.strict_json import parse_object

#: Pass-through format of a unit that a tool left alone, by its stored type; float32 keeps 16 of its bits in a plan.
LEFT = {"BF16": "bf16", "F16": "fp16", "F32": "fp16", "F64": "fp16"}


@dataclass(frozen=True)
class Imported:
    """formats: unit name to format name, for every unit. notes: what could not be said exactly."""

    formats: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Importer:
    """recognizes: whether the path is of this kind, from its name and config alone. read: the formats of a model."""

    recognizes: Callable[[Path], bool]
    read: Callable[[Path, Inventory], Imported]


def quantization_of(folder: Path) -> dict[str, Any]:
    """`quantization_config` of config.json, or an empty object. Raises InvalidModel."""
    if not (folder / "config.json").is_file():
        return {}
    found = read_config(folder).get("quantization_config") or {}
    if not isinstance(found, dict):
        raise InvalidModel("config.json is wrong at 'quantization_config'", expected="an object", got=str(found)[:80])
    return found


def read_json(file: Path) -> dict[str, Any]:
    """A bounded JSON object, or an empty one where there is no such file."""
    if not file.is_file():
        return {}
    found: dict[str, Any] = parse_object(
        read_bounded(file, DEFAULT_LIMITS.config_bytes), what=file.name, containers=DEFAULT_LIMITS.config_bytes
    )
    return found


def stored_names(folder: Path) -> frozenset[str]:
    """Names of all tensors in a folder's weight files."""
    return frozenset(read_weights(folder).tensors)


def module_of(unit: Unit) -> str:
    return unit.name.removesuffix(".weight")


def left_alone(unit: Unit) -> str:
    return LEFT[unit.dtype]


def int_format(unit: Unit, bits: Any, group: Any, symmetric: Any) -> str:
    """The name of an integer format with these settings; a group of -1, None or 0 is one a row. Raises Unsupported."""
    if type(bits) is not int or not 1 <= bits <= 8 or not isinstance(symmetric, bool):
        raise Unsupported(
            f"{unit.name} is stored in a way that no format here says", expected="1 to 8 bits, symmetric or not",
            got=f"bits {bits!r}, sym {symmetric!r}"[:120],
        )  # fmt: skip
    whole = group in (-1, 0, None)
    if not whole and (type(group) is not int or group < 1):
        raise Unsupported(f"{unit.name} has a strange group", expected="-1 or a positive size", got=repr(group)[:40])
    return parse_format(f"int{bits}{'-sym' if symmetric else ''}-{'channel' if whole else f'g{group}'}").name
