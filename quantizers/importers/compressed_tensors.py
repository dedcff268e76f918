"""compressed-tensors checkpoints: the scheme that `config_groups` gives each module (research/04 section 5.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.inventory import Inventory, Unit
from bitwright.engines.names import module_in_memory
from quantizers.importers.base import (
    Imported,
    Importer,
    int_format,
    left_alone,
    module_of,
    quantization_of,
    stored_names,
)

#: The pattern that transformers wants for fused experts, the one for a block's experts, and suffixes `re:.*name$`.
_EXPERTS = r".*\.experts\.[0-9]+\..*"
_BLOCK = re.compile(r"\^(?P<block>(?:[A-Za-z0-9_]|\\\.)+)\\\.experts\\\.\[0-9\]\+\\\.\.\*\$")
_SUFFIX = re.compile(r"\^?(?:\.\*)?(?P<tail>(?:[A-Za-z0-9_]|\\?\.)+)\$?")


def recognizes(path: Path) -> bool:
    return path.is_dir() and quantization_of(path).get("quant_method") == "compressed-tensors"


def read(path: Path, inventory: Inventory) -> Imported:
    """A module is quantized where the files hold its `weight_packed`. Raises InvalidModel, Unsupported."""
    config, names = quantization_of(path), stored_names(path)
    groups = config.get("config_groups")
    if not isinstance(groups, dict):
        raise InvalidModel("the checkpoint names no config_groups", expected="an object", got=type(groups).__name__)
    found: dict[str, str] = {}
    for unit in inventory.units:
        module = module_of(unit)
        if f"{module}.weight_packed" not in names:
            if f"{module}.weight_scale" in names:
                raise Unsupported(
                    f"{unit.name} is not packed integers", expected="pack-quantized", got="another format"
                )
            found[unit.name] = left_alone(unit)
            continue
        weights = _scheme(unit, groups, inventory.architecture)
        grouped = weights.get("strategy") == "group"
        if weights.get("type", "int") != "int" or weights.get("strategy") not in ("group", "channel"):
            raise Unsupported(f"{unit.name} has a scheme that no format here says", got=str(weights)[:160])
        found[unit.name] = int_format(
            unit, weights.get("num_bits"), weights.get("group_size") if grouped else -1, weights.get("symmetric", True)
        )
    return Imported(found)


def _scheme(unit: Unit, groups: Mapping[str, Any], architecture: str) -> Mapping[str, Any]:
    """`weights` of the group that names the module: exactly, by pattern, or by its class, in this order."""
    names = {module_of(unit), module_in_memory(unit.name, architecture)}
    for fits in (_exactly, _by_pattern, _by_class):
        for group in groups.values():
            targets = group.get("targets") if isinstance(group, dict) else None
            weights = group.get("weights") if isinstance(group, dict) else None
            if isinstance(targets, list) and isinstance(weights, dict) and any(fits(str(t), names) for t in targets):
                return weights
    raise InvalidModel("no config group names a packed module", expected="a target", got=unit.name)


def _exactly(target: str, names: set[str]) -> bool:
    return target in names


def _by_pattern(target: str, names: set[str]) -> bool:
    """Patterns from a file are not run; the plain kinds that tools write are understood."""
    if not target.startswith("re:"):
        return False
    text = target.removeprefix("re:")
    if text == _EXPERTS:
        return any(re.fullmatch(_EXPERTS, name) for name in names)
    match = _BLOCK.fullmatch(text)
    if match is not None:
        return any(name.startswith(match["block"].replace("\\.", ".") + ".experts.") for name in names)
    match = _SUFFIX.fullmatch(text)
    if match is None:
        raise Unsupported("a target pattern is not run", expected="a name, or re:.*name$", got=ascii(text)[:120])
    tail = match["tail"].replace("\\.", ".")
    return any(name == tail if text.startswith("^") and ".*" not in text else name.endswith(tail) for name in names)


def _by_class(target: str, names: set[str]) -> bool:
    return target == "Linear"


IMPORTER = Importer(recognizes, read)
