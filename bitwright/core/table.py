"""Sensitivity table: `loss[unit, format]`, the predicted rise of the model's loss, with its doubt and provenance.

A table carries what a plan needs besides the model (shapes, exact bytes, tie families), so that a new budget, limit or
engine is answered without the model. File form: `.npz` without pickles; `meta` is one JSON text.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import atomic_write, canonical_json, digest_json
from bitwright.core.errors import InvalidPlan
from bitwright.core.formats import Format, parse_format
from bitwright.core.inventory import Inventory
from bitwright.core.mixed_format import cut, is_finer, mixed, part_bytes, row_names
from bitwright.core.npz import read_npz
from bitwright.core.problem import Limit, Problem, Resource
from bitwright.core.problem_file import parse_json

TABLE_VERSION = 1
#: Names of extra arrays in the file begin so.
EXTRA = "extra_"


@dataclass(frozen=True, eq=False)
class SensitivityTable:
    """loss, stderr: float64 (rows, formats); `inf` loss forbids a cell, NaN stderr means unknown.

    menus: (units, columns) format names where every unit has a menu of its own ("": none, its loss is inf); `formats`
        then only names the columns, such as `rung-0`.
    granularity: a row is a unit, or with a finer granularity a part of a unit (`core.mixed_format`), unit after unit.

    inventory: units in the table's row order (with their shapes and families) and the unquantized rest.
    loss_unit: what the numbers are in (`nats of KL per token`, `squared error` ...).
    provenance: metric, parameters, quantizer, seed, calibration digest, version.
    extras: further arrays whose last two axes are (units, formats): `resampled` tables (replicates, units, formats),
        and what a metric keeps on request.
    """

    inventory: Inventory
    formats: tuple[str, ...]
    loss: NDArray[np.float64]
    stderr: NDArray[np.float64]
    metric: str
    loss_unit: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    granularity: str = "tensor"
    menus: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        shape = (sum(self.part_counts), len(self.formats))
        if self.menus and (len(self.menus), {len(row) for row in self.menus}) != (shape[0], {shape[1]}):
            raise InvalidPlan("the menus of the table's units have the wrong shape", expected=str(shape))
        if any(array.shape[-2:] != shape for array in self.extras.values()):
            raise InvalidPlan("an extra array of the table has the wrong shape", expected=f"(..., {shape})")
        if self.loss.shape != shape or self.stderr.shape != shape:
            raise InvalidPlan(
                "the table has the wrong shape", expected=str(shape), got=f"{self.loss.shape}, {self.stderr.shape}"
            )
        if np.isnan(self.loss).any() or np.isneginf(self.loss).any():
            raise InvalidPlan("a loss of the table is NaN or -inf", hint="score again; see the log of the scoring run")

    @cached_property
    def _members(self) -> tuple[Format, ...]:
        return tuple(parse_format(name) for name in self.formats)

    @cached_property
    def part_counts(self) -> tuple[int, ...]:
        """Rows of the table by unit: 1, or with a finer granularity the unit's parts."""
        if not is_finer(self.granularity):
            return (1,) * len(self.inventory.units)
        return tuple(cut(self.granularity, unit.shape, self._members).parts for unit in self.inventory.units)

    @cached_property
    def row_units(self) -> NDArray[np.int64]:
        """int64 (rows,): the unit number of every row of the table."""
        return np.repeat(np.arange(len(self.inventory.units)), self.part_counts)

    def row_names(self) -> tuple[str, ...]:
        """The units' names; parts of tensors are called `<unit>#<number>`."""
        return row_names([unit.name for unit in self.inventory.units], self.granularity, self.part_counts)

    def unit_formats(self, choice: NDArray[np.int64]) -> list[str]:
        """The name of every unit's format for a choice of columns by row of the table."""
        if self.menus:
            return [menu[j] for menu, j in zip(self.menus, choice.tolist(), strict=True)]
        if not is_finer(self.granularity):
            return [self.formats[j] for j in choice.tolist()]
        cuts = np.cumsum((0, *self.part_counts)).tolist()
        return [mixed(self.granularity, self._members, choice[a:b]).name for a, b in pairwise(cuts)]

    def by_unit(self) -> SensitivityTable:
        """The table of whole units: losses of a unit's parts added up (exact for tables of units)."""
        if not is_finer(self.granularity):
            return self
        shape = (len(self.inventory.units), len(self.formats))
        loss, squares = np.zeros(shape), np.zeros(shape)
        np.add.at(loss, self.row_units, self.loss)
        np.add.at(squares, self.row_units, self.stderr**2)
        return replace(self, loss=loss, stderr=np.sqrt(squares), extras={}, granularity="tensor")

    def cost_bytes(self) -> NDArray[np.int64]:
        """Exact stored bytes (rows, formats); the first part of a unit also pays for the unit's index of parts."""
        shapes = {u.shape for u in self.inventory.units}
        if self.menus:
            pairs = zip(self.inventory.units, self.menus, strict=True)
            return np.array(
                [[parse_format(n).storage(u.shape).bytes if n else 0 for n in names] for u, names in pairs], np.int64
            )
        if is_finer(self.granularity):
            parts = {shape: part_bytes(self.granularity, shape, self._members) for shape in shapes}
            return np.concatenate([parts[u.shape] for u in self.inventory.units])
        rows = {shape: [f.storage(shape).bytes for f in self._members] for shape in shapes}
        return np.array([rows[u.shape] for u in self.inventory.units], np.int64)

    def problem(
        self,
        limit_bytes: int | None,
        *,
        tie_kinds: tuple[str, ...] = (),
        allowed: NDArray[np.bool_] | None = None,
    ) -> Problem:
        """The allocation problem of this table. `allowed` (units, formats) cuts the menu, as an engine asks."""
        loss = self.loss if allowed is None else np.where(allowed[self.row_units], self.loss, np.inf)
        tie = np.array(self.inventory.tie_ids(tie_kinds), np.int64) if tie_kinds else None
        return Problem(
            loss=loss,
            resources=(Resource("bytes", matrix=self.cost_bytes()),),
            limits=() if limit_bytes is None else (Limit("bytes", limit_bytes),),
            tie=tie,
            unit_names=self.row_names(),
            format_names=self.formats,
        )

    def restrict(self, formats: tuple[str, ...]) -> SensitivityTable:
        """The same table with some of its columns, in the given order."""
        columns = [self.formats.index(name) for name in formats]
        extras = {name: array[..., columns] for name, array in self.extras.items()}
        menus = tuple(tuple(row[j] for j in columns) for row in self.menus)
        return replace(
            self, formats=formats, loss=self.loss[:, columns], stderr=self.stderr[:, columns], extras=extras,
            menus=menus,
        )  # fmt: skip

    def without_units(self, inventory: Inventory) -> SensitivityTable:
        """The rows of the units that `inventory` (this one with some units kept unquantized) still plans."""
        names = {unit.name for unit in inventory.units}
        stay = np.array([unit.name in names for unit in self.inventory.units], bool)
        rows = np.flatnonzero(stay[self.row_units])
        extras = {name: array[..., rows, :] for name, array in self.extras.items()}
        menus = tuple(row for row, left in zip(self.menus, stay, strict=True) if left) if self.menus else ()
        return replace(
            self, inventory=inventory, loss=self.loss[rows], stderr=self.stderr[rows], extras=extras, menus=menus
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """What engines are asked about each column: its format, or with menus the members that some unit mixes."""
        if not self.menus:
            return self.formats
        return tuple(next((parse_format(n).label for n in column if n), "") for column in zip(*self.menus, strict=True))

    @property
    def digest(self) -> str:
        return digest_json(
            {
                **self._meta(),
                "loss": [[value if math.isfinite(value) else None for value in row] for row in self.loss.tolist()],
                "stderr": np.nan_to_num(self.stderr, nan=-1).tolist(),
                **({"extras": _digests(self.extras)} if self.extras else {}),
            }
        )

    def _meta(self) -> dict[str, Any]:
        finer = {"granularity": self.granularity} if is_finer(self.granularity) else {}
        menus = {"menus": [list(row) for row in self.menus]} if self.menus else {}
        return {
            **finer, **menus, "bitwright_table": TABLE_VERSION,
            "inventory": self.inventory.to_json(), "formats": list(self.formats),
            "metric": self.metric, "loss_unit": self.loss_unit, "provenance": dict(self.provenance),
        }  # fmt: skip

    def save(self, path: str | Path) -> None:
        arrays = {
            "loss": self.loss, "stderr": self.stderr, "cost_bytes": self.cost_bytes(),
            "unit_names": np.array(self.row_names(), dtype=np.str_),
            "format_names": np.array(self.formats, dtype=np.str_),
            "meta": np.array(canonical_json(self._meta()).decode(), dtype=np.str_),
            **{EXTRA + name: array for name, array in self.extras.items()},
        }  # fmt: skip
        with atomic_write(Path(path)) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def _digests(extras: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    return {
        name: hashlib.sha256(str((array.dtype.str, array.shape)).encode() + array.tobytes()).hexdigest()
        for name, array in extras.items()
    }


def load_table(path: str | Path) -> SensitivityTable:
    """Raises InvalidPlan or InvalidProblem for a file that is no table."""
    path = Path(path)
    if not path.is_file():
        raise InvalidPlan("there is no such sensitivity table", got=str(path))
    arrays = read_npz(path)
    if "meta" not in arrays or "stderr" not in arrays or "loss" not in arrays:
        raise InvalidPlan("this .npz is not a sensitivity table", expected="a file written by `bitwright score --out`")
    meta = parse_json(str(arrays["meta"].reshape(-1)[0]).encode())
    try:
        if meta["bitwright_table"] != TABLE_VERSION:
            raise InvalidPlan(
                "the table has another version", expected=str(TABLE_VERSION), got=str(meta["bitwright_table"])
            )
        inventory = Inventory.from_json(meta["inventory"])
        return SensitivityTable(
            inventory, tuple(meta["formats"]), arrays["loss"].astype(np.float64), arrays["stderr"].astype(np.float64),
            meta["metric"], meta["loss_unit"], meta["provenance"],
            {name.removeprefix(EXTRA): array for name, array in arrays.items() if name.startswith(EXTRA)},
            meta.get("granularity", "tensor"), tuple(tuple(map(str, row)) for row in meta.get("menus", ())),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidPlan("the table's description is incomplete", got=repr(error)[:120]) from error
