"""Problem: pure arrays. n units, k formats, losses, costs, limits, ties, rules, pair terms. Knows nothing of models.

Validated once, at construction; everything that takes a Problem may rely on it:
losses are finite or +inf (forbidden cell), costs finite and >= 0, totals fit int64, every tie group has an allowed
format, names are unique and printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core import problem_check
from bitwright.core.blocks import BLOCK_ROWS, CACHED, blocks, exact_sum, row_blocks
from bitwright.core.errors import InvalidProblem

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]

AT_LEAST, AT_MOST = 1, -1
#: What every choice pays counts as much where it is so many times what formats differ by.
MUCH = 16


def _divides(divisor: int, part: NDArray[Any]) -> bool:
    if divisor & (divisor - 1) == 0:
        return int(np.bitwise_or.reduce(part)) & (divisor - 1) == 0
    return not (part % divisor).any()


@dataclass(frozen=True)
class Sizes:
    """Sum, least, largest and greatest common divisor (0 when all are 0) of the sizes of a compact resource."""

    total: int
    least: int
    most: int
    divisor: int


@dataclass(frozen=True)
class Resource:
    """What a format costs. Either `matrix` (n, k), or size (n,) x rate (k,) in units of 1/rate_den."""

    name: str
    matrix: NDArray[Any] | None = None
    size: IntArray | None = None
    rate: IntArray | None = None
    rate_den: int = 1

    @cached_property
    def integral(self) -> bool:
        return self.matrix is None or self.matrix.dtype.kind in "iu"

    @cached_property
    def sizes(self) -> Sizes:
        """Of the compact form; found in one scan, kept. The total is exact whatever its magnitude."""
        assert self.size is not None
        total, least, most, divisor = 0, 2**63, -(2**63), 0
        for part in blocks(self.size):
            if divisor != 1 and not (divisor and _divides(divisor, part)):
                divisor = int(np.gcd.reduce(part, initial=divisor))
            least, most = min(least, int(part.min())), max(most, int(part.max()))
            small = -(2**40) < least <= most < 2**40  # a block of 2^16 such numbers cannot overflow
            total += int(part.sum()) if small else int(part.astype(object).sum())
        return Sizes(total, least, most, divisor)

    def costs(self, rows: slice | IntArray = slice(None)) -> NDArray[Any]:
        """Dense (n, k) or of some rows: int64 where the resource is integral, else float64."""
        if self.matrix is not None:
            return self.matrix[rows]
        assert self.size is not None
        assert self.rate is not None
        return np.multiply.outer(self.size[rows], self.rate)

    def total(self, choice: IntArray, units: IntArray | None = None) -> int | float:
        """Cost of a choice over all units or a subset: exact integer, or an exactly rounded float sum."""
        if units is not None:
            return _total(self._chosen(choice[units], units))
        if len(choice) <= BLOCK_ROWS:
            return _total(self._chosen(choice, slice(None)))
        parts = [_total(self._chosen(choice[rows], rows)) for rows in row_blocks(len(choice))]
        return sum(parts) if self.integral else exact_sum(np.array(parts))

    def _chosen(self, choice: IntArray, rows: slice | IntArray) -> NDArray[Any]:
        if self.matrix is not None:
            part: NDArray[Any] = self.matrix[rows]
            found: NDArray[Any] = part[np.arange(len(part)), choice]
            return found
        assert self.size is not None
        assert self.rate is not None
        return self.size[rows] * self.rate[choice]


@dataclass(frozen=True)
class Limit:
    """Upper bound on one resource, over all units (`units=None`) or over a named subset."""

    resource: str
    value: int | float
    subset: str | None = None
    units: IntArray | None = None

    def __post_init__(self) -> None:
        """numpy's numbers become Python's, which JSON knows; what is no number is refused with the Problem."""
        if isinstance(self.value, Real) and not isinstance(self.value, bool):
            plain = int(self.value) if isinstance(self.value, Integral) else float(self.value)
            object.__setattr__(self, "value", plain)

    @cached_property
    def name(self) -> str:
        """Key of its multiplier: `bytes`, or `bytes@block0` for a subset."""
        return self.resource if self.subset is None else f"{self.resource}@{self.subset}"


@dataclass(frozen=True)
class Rule:
    """Count rule: at least (+1) / at most (-1) `count` units of `units` in one of `formats`."""

    units: IntArray
    formats: IntArray
    sense: int
    count: int


@dataclass(frozen=True)
class Pairs:
    """Pair terms: `loss[p]` is added when unit[p, 0] takes format[p, 0] and unit[p, 1] takes format[p, 1]."""

    unit: IntArray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    format: IntArray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    loss: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.loss)

    def met(self, choice: IntArray) -> NDArray[np.float64]:
        """The losses of the terms that a choice meets."""
        terms: NDArray[np.float64] = self.loss[(choice[self.unit] == self.format).all(axis=1)]
        return terms

    def total(self, choice: IntArray) -> float:
        return exact_sum(self.met(choice)) if len(self) else 0.0


@dataclass(frozen=True, eq=False)
class Problem:
    """minimise sum of loss[i, x_i] + pair terms, subject to limits, ties, rules. See the module docstring."""

    loss: FloatArray
    resources: tuple[Resource, ...] = ()
    limits: tuple[Limit, ...] = ()
    tie: IntArray | None = None
    rules: tuple[Rule, ...] = ()
    pairs: Pairs = field(default_factory=Pairs)
    unit_names: tuple[str, ...] | None = None
    format_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        problem_check.validate(self)

    @cached_property
    def n(self) -> int:
        return int(self.loss.shape[0])

    @cached_property
    def k(self) -> int:
        return int(self.loss.shape[1])

    def resource(self, name: str) -> Resource:
        for resource in self.resources:
            if resource.name == name:
                return resource
        raise InvalidProblem(
            f"there is no resource '{name}'",
            expected=", ".join(r.name for r in self.resources) or "cost arrays",
            got=name,
        )

    @cached_property
    def group_index(self) -> IntArray:
        """(n,) index of each unit's tie group, 0 .. groups-1 in order of first appearance."""
        if self.tie is None:
            return np.arange(self.n)
        _, first, inverse = np.unique(self.tie, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[inverse.reshape(-1)]

    @property
    def groups(self) -> int:
        return self.n if self.tie is None else int(self.group_index.max()) + 1

    @cached_property
    def extremes(self) -> Extremes:
        """Of the losses, found in one scan."""
        return Extremes(*problem_check.extremes(self.loss))

    @cached_property
    def centred(self) -> Problem:
        """The same problem, or one whose limits lack what every choice pays, where that is much (whole costs only).

        Taken off in integers it cannot drown the differences between formats once costs are priced in float64.
        """
        resources, limits = [], list(self.limits)
        for resource in self.resources:
            at = [i for i, limit in enumerate(limits) if limit.resource == resource.name]
            paid = _paid(resource, self.loss if self.extremes.forbids else None) if at and resource.integral else None
            if paid is None:
                resources.append(resource)
                continue
            resources.append(paid[0])
            for i in at:
                units = limits[i].units
                total = int((paid[1] if units is None else paid[1][units]).sum())
                limits[i] = replace(limits[i], value=limits[i].value - total)
        if all(a is b for a, b in zip(resources, self.resources, strict=True)):
            return self
        other = copy(self)
        object.__setattr__(other, "resources", tuple(resources))
        object.__setattr__(other, "limits", tuple(limits))
        return other

    def with_limit(self, name: str, value: int | float) -> Problem:
        """The same problem with another value of one limit (by `Limit.name`)."""
        if name not in {limit.name for limit in self.limits}:
            resource, _, subset = name.partition("@")
            if subset:
                raise InvalidProblem(f"there is no limit '{name}'", got=name)
            extra = (Limit(self.resource(resource).name, value),)
            return self._replace_limits((*self.limits, *extra))
        return self._replace_limits(
            tuple(Limit(m.resource, value, m.subset, m.units) if m.name == name else m for m in self.limits)
        )

    def without_losses(self) -> Problem:
        """The same problem where every allowed choice loses nothing. What is known to be valid is not checked again."""
        other = copy(self)
        other.__dict__.pop("centred", None)
        object.__setattr__(other, "loss", np.where(np.isfinite(self.loss), 0.0, np.inf))
        object.__setattr__(other, "pairs", Pairs())
        object.__setattr__(other, "extremes", Extremes(0.0, 0.0, self.extremes.forbids))
        return other

    def _replace_limits(self, limits: tuple[Limit, ...]) -> Problem:
        """The arrays are shared and known to be valid: only the limits are looked at."""
        other = copy(self)
        other.__dict__.pop("centred", None)
        object.__setattr__(other, "limits", limits)
        problem_check.check_limits(other)
        return other


@dataclass(frozen=True)
class Extremes:
    """Least and greatest finite loss (0 when there is none), and whether some loss is inf."""

    least: float
    greatest: float
    forbids: bool


def much(least: IntArray, most: IntArray) -> bool:
    """Whether the least costs of units are much of what their formats cost (`MUCH`)."""
    paid, spread = int(least.sum()), int(most.sum()) - int(least.sum())
    return paid > MUCH * spread > 0


def _paid(resource: Resource, loss: FloatArray | None) -> tuple[Resource, IntArray] | None:
    """(the resource without what every choice pays, that of each unit), where it is much. loss: None forbids none."""
    if resource.matrix is None:
        assert resource.size is not None
        assert resource.rate is not None
        rates = resource.rate.tolist()
        low = min(rates)
        if not low > MUCH * (max(rates) - low) > 0:
            return None
        return replace(resource, rate=resource.rate - low), resource.size * low
    least, most = least_and_most(resource.matrix, loss)
    if not much(least, most):
        return None
    return replace(resource, matrix=np.maximum(resource.matrix - least[:, None], 0)), least


def least_and_most(cost: IntArray, loss: FloatArray | None) -> tuple[IntArray, IntArray]:
    """Of the formats that each row may take (loss: None forbids nothing); 0 for a row that may take none."""
    n, k = cost.shape
    least, most = np.empty(n, np.int64), np.empty(n, np.int64)
    rows = max(1, CACHED // k)
    for begin in range(0, n, rows):  # format by format, each a stretch in the cache: faster than along the rows
        part = slice(begin, begin + rows)
        own = np.ascontiguousarray(cost[part].T)
        none: Any = False if loss is None else np.isinf(np.ascontiguousarray(loss[part].T))
        np.minimum.reduce(own if loss is None else np.where(none, np.iinfo(np.int64).max, own), out=least[part])
        np.maximum.reduce(own if loss is None else np.where(none, -1, own), out=most[part])
    if loss is not None:
        least[most < 0] = 0
        np.maximum(most, 0, out=most)
    return least, most


def _total(cells: NDArray[Any]) -> int | float:
    return int(np.add.reduce(cells)) if cells.dtype.kind in "iu" else exact_sum(cells, signed=False)


def compact_bits(size: Any, rate: Any, rate_den: int = 1) -> Resource:
    """The resource `bits` in compact form: cost[i, j] = size[i] * rate[j], in 1/rate_den bit."""
    whole = problem_check.whole_numbers
    return Resource("bits", size=whole(size, "size"), rate=whole(rate, "rate"), rate_den=rate_den)


def from_arrays(arrays: Mapping[str, Any]) -> Problem:
    """A Problem from the named arrays of DESIGN section 5 (see `problem_file`)."""
    from bitwright.core.problem_file import problem_from_arrays

    return problem_from_arrays(arrays)
