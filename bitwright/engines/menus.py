"""What each engine loads of a model's units, format by format: preflight for every budget at once.

A picture that follows a dragged budget cannot ask a server in each frame. So the answer is given once: units that all
engines treat alike form a class, and for each class and format an engine says nothing (it loads) or why not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory
from bitwright.engines.catalog import shipped_profiles
from bitwright.engines.profile import EngineProfile


def menus_document(inventory: Inventory, formats: Sequence[str]) -> dict[str, Any]:
    """{formats, unit_class: class of each unit, classes: [{example, units}], tied, engines}.

    tied: by kinds of families, joined by commas, one number a unit that tied units share. Each engine: name, title,
    version, ties (kinds of families that it fuses), container, export, and `refusals`: for each class and format null
    where it loads, else the reason in words.
    """
    profiles = list(shipped_profiles().values())
    masks = np.array([profile.allowed(inventory, formats) for profile in profiles], bool)
    member, example = _classes(inventory, masks)
    counts = np.bincount(member, minlength=len(example)).tolist()
    return {
        "formats": list(formats),
        "unit_class": member.tolist(),
        "classes": [
            {"example": inventory.units[i].name, "units": count} for i, count in zip(example, counts, strict=True)
        ],
        "tied": {
            ",".join(kinds): list(inventory.tie_ids(kinds))
            for kinds in {profile.tie_kinds for profile in profiles}
            if kinds
        },
        "engines": [_engine(profile, inventory, example, formats) for profile in profiles],
    }


def _classes(inventory: Inventory, masks: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[int]]:
    """(class of each unit, first unit of each class): alike in shape, kind and what every engine loads of them."""
    keys: dict[tuple[object, ...], int] = {}
    member, example = np.empty(len(inventory.units), np.int64), list[int]()
    rows = np.moveaxis(masks, 1, 0).reshape(len(inventory.units), -1)
    for i, (unit, row) in enumerate(zip(inventory.units, rows, strict=True)):
        key = (unit.shape, unit.expert is None, unit.layer is None, unit.index is None, row.tobytes())
        if key not in keys:
            keys[key] = len(example)
            example.append(i)
        member[i] = keys[key]
    return member, example


def _engine(
    profile: EngineProfile, inventory: Inventory, example: Sequence[int], formats: Sequence[str]
) -> dict[str, Any]:
    parsed = [parse_format(name) for name in formats]
    units = [inventory.units[i] for i in example]
    return {
        "name": profile.name,
        "title": profile.title,
        "version": profile.version,
        "ties": list(profile.tie_kinds),
        "container": profile.container,
        "export": profile.export,
        "refusals": [["; ".join(profile.refusals(unit, format)) or None for format in parsed] for unit in units],
    }
