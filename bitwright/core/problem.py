"""Problem: pure arrays. n units, k formats, losses, costs, limits, ties, rules, pair terms. Knows nothing of models.

Validated once, at construction; everything that takes a Problem may rely on it:
losses are finite or +inf (forbidden cell), costs finite and >= 0, totals fit int64, every tie group has an allowed
format, names are unique and printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidProblem

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]

MAX_FORMATS = 64
MAX_NAME = 256
INT64_MAX = 2**63 - 1
AT_LEAST, AT_MOST = 1, -1


@dataclass(frozen=True)
class Resource:
    """What a format costs. Either `matrix` (n, k), or size (n,) x rate (k,) in units of 1/rate_den."""

    name: str
    matrix: NDArray[Any] | None = None
    size: IntArray | None = None
    rate: IntArray | None = None
    rate_den: int = 1

    @property
    def integral(self) -> bool:
        return self.matrix is None or np.issubdtype(self.matrix.dtype, np.integer)

    def costs(self) -> NDArray[Any]:
        """Dense (n, k): int64 where the resource is integral, else float64."""
        if self.matrix is not None:
            return self.matrix
        assert self.size is not None
        assert self.rate is not None
        return np.multiply.outer(self.size, self.rate)

    def total(self, choice: IntArray, units: IntArray | None = None) -> int | float:
        """Cost of a choice over all units or a subset: exact integer, or an exactly rounded float sum."""
        rows = np.arange(len(choice)) if units is None else units
        if self.matrix is None:
            assert self.size is not None
            assert self.rate is not None
            return int((self.size[rows] * self.rate[choice[rows]]).sum())
        cells = self.matrix[rows, choice[rows]]
        return int(cells.sum()) if self.integral else _exact_sum(cells)


@dataclass(frozen=True)
class Limit:
    """Upper bound on one resource, over all units (`units=None`) or over a named subset."""

    resource: str
    value: int | float
    subset: str | None = None
    units: IntArray | None = None

    @property
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

    def total(self, choice: IntArray) -> float:
        if not len(self):
            return 0.0
        both = (choice[self.unit] == self.format).all(axis=1)
        return _exact_sum(self.loss[both])


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
        _validate(self)

    @property
    def n(self) -> int:
        return int(self.loss.shape[0])

    @property
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
        return int(self.group_index.max()) + 1 if self.n else 0

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

    def _replace_limits(self, limits: tuple[Limit, ...]) -> Problem:
        return Problem(
            self.loss, self.resources, limits, self.tie, self.rules, self.pairs, self.unit_names, self.format_names
        )


def _exact_sum(values: NDArray[Any]) -> float:
    """Exactly rounded for up to a million terms (math.fsum), extended precision with pairwise blocks beyond."""
    import math

    if values.size <= 1_000_000:
        return math.fsum(values.astype(np.float64).ravel().tolist())
    blocks = [values.ravel()[i : i + 65536].astype(np.longdouble).sum() for i in range(0, values.size, 65536)]
    return float(np.sum(np.array(blocks, np.longdouble)))


exact_sum = _exact_sum


def _validate(p: Problem) -> None:
    loss = p.loss
    if not isinstance(loss, np.ndarray) or loss.ndim != 2:
        raise InvalidProblem(
            "loss must be a matrix", expected="shape (units, formats)", got=str(getattr(loss, "shape", type(loss)))
        )
    if loss.dtype not in (np.float32, np.float64):
        raise InvalidProblem("loss has the wrong type", expected="float32 or float64", got=str(loss.dtype))
    n, k = loss.shape
    if n == 0 or k == 0:
        raise InvalidProblem("a problem needs at least one unit and one format", got=f"{n} units, {k} formats")
    if k > MAX_FORMATS:
        raise InvalidProblem("too many formats", expected=f"at most {MAX_FORMATS}", got=str(k))
    if np.isnan(loss).any():
        row, column = np.argwhere(np.isnan(loss))[0]
        raise InvalidProblem(
            "a loss is NaN", expected="finite, or inf for a forbidden cell", got=f"loss[{row}, {column}]"
        )
    if np.isneginf(loss).any():
        raise InvalidProblem("a loss is -inf", expected="finite, or inf for a forbidden cell", got="-inf")
    _check_names("unit", p.unit_names, n)
    _check_names("format", p.format_names, k)
    if p.tie is not None and (p.tie.shape != (n,) or not np.issubdtype(p.tie.dtype, np.integer)):
        raise InvalidProblem(
            "tie must hold one integer a unit", expected=f"int64 ({n},)", got=f"{p.tie.dtype} {p.tie.shape}"
        )
    for resource in p.resources:
        _check_resource(resource, n, k)
    if len({r.name for r in p.resources}) != len(p.resources):
        raise InvalidProblem("two resources share a name")
    for limit in p.limits:
        _check_limit(p, limit)
    if len({m.name for m in p.limits}) != len(p.limits):
        raise InvalidProblem("two limits share a name")
    for index, rule in enumerate(p.rules):
        _check_rule(rule, index, n, k)
    _check_pairs(p.pairs, n, k)
    allowed = np.isfinite(loss)
    if p.tie is not None:
        allowed_group = np.ones((p.groups, k), bool)
        np.logical_and.at(allowed_group, p.group_index, allowed)
        allowed = allowed_group
    empty = np.flatnonzero(~allowed.any(axis=1))
    if len(empty):
        unit = int(np.flatnonzero(p.group_index == empty[0])[0])
        name = p.unit_names[unit] if p.unit_names else f"unit {unit}"
        raise InvalidProblem(
            "a unit (or its tie group) may take no format at all", got=name, hint="leave one finite loss a row"
        )


def _check_names(kind: str, names: tuple[str, ...] | None, count: int) -> None:
    if names is None:
        return
    if len(names) != count:
        raise InvalidProblem(f"{kind}_names has the wrong length", expected=str(count), got=str(len(names)))
    strange = next((name for name in names if not name.isprintable()), None)
    if strange is not None:
        raise InvalidProblem(
            f"a {kind} name holds control characters", expected="printable text", got=repr(strange)[:80]
        )
    if len(set(names)) != count:
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InvalidProblem(f"two {kind}s share a name", got=repr(twice)[:80])
    for name in names:
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise InvalidProblem(
                f"a {kind} name cannot be used", expected=f"1 to {MAX_NAME} printable characters", got=repr(name)[:80]
            )


def _check_resource(r: Resource, n: int, k: int) -> None:
    if r.matrix is not None:
        if r.matrix.shape != (n, k):
            raise InvalidProblem(f"cost_{r.name} has the wrong shape", expected=f"({n}, {k})", got=str(r.matrix.shape))
        if r.matrix.dtype not in (np.int64, np.float64):
            raise InvalidProblem(
                f"cost_{r.name} has the wrong type", expected="int64 or float64", got=str(r.matrix.dtype)
            )
        if not np.isfinite(r.matrix).all() or (r.matrix < 0).any():
            raise InvalidProblem(f"cost_{r.name} must be finite and not negative")
        if r.integral and _max_total(r.matrix) > INT64_MAX:
            raise InvalidProblem(f"the total of cost_{r.name} overflows int64", hint="use a larger unit of cost")
        return
    if r.size is None or r.rate is None or r.size.shape != (n,) or r.rate.shape != (k,):
        raise InvalidProblem("size and rate have the wrong shape", expected=f"size ({n},), rate ({k},)")
    if not (np.issubdtype(r.size.dtype, np.integer) and np.issubdtype(r.rate.dtype, np.integer)):
        raise InvalidProblem("size and rate must be integers", got=f"{r.size.dtype}, {r.rate.dtype}")
    if (r.size < 0).any() or (r.rate < 0).any() or r.rate_den < 1:
        raise InvalidProblem("size and rate must not be negative, and rate_den at least 1")
    # Python integers: the check itself must not overflow.
    total_size = sum(int(block.astype(object).sum()) for block in np.array_split(r.size, max(1, n // 65536)))
    if total_size * int(r.rate.max()) > INT64_MAX:
        raise InvalidProblem(
            "the total of size x rate overflows int64", hint="divide the sizes by their common divisor"
        )


def _max_total(matrix: NDArray[Any]) -> int:
    top = matrix.max(axis=1)
    high, low = int((top >> 32).sum()), int((top & 0xFFFFFFFF).sum())
    return (high << 32) + low


def _check_limit(p: Problem, limit: Limit) -> None:
    resource = p.resource(limit.resource)
    if isinstance(limit.value, float) and not np.isfinite(limit.value):
        raise InvalidProblem(f"limit_{limit.name} must be a finite number", got=repr(limit.value))
    if abs(limit.value) > INT64_MAX:
        raise InvalidProblem(f"limit_{limit.name} is out of range", got=repr(limit.value))
    if limit.units is not None:
        _check_indices(f"subset of limit {limit.name}", limit.units, p.n)
    del resource


def _check_indices(what: str, indices: IntArray, bound: int) -> None:
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise InvalidProblem(f"{what}: indices must be a list of integers")
    if len(indices) and (indices.min() < 0 or indices.max() >= bound):
        raise InvalidProblem(f"{what}: an index is out of range", expected=f"0 .. {bound - 1}")
    if len(np.unique(indices)) != len(indices):
        raise InvalidProblem(f"{what}: an index stands twice")


def _check_rule(rule: Rule, index: int, n: int, k: int) -> None:
    _check_indices(f"rule {index} units", rule.units, n)
    _check_indices(f"rule {index} formats", rule.formats, k)
    if rule.sense not in (AT_LEAST, AT_MOST):
        raise InvalidProblem(f"rule {index}: sense must be 1 (at least) or -1 (at most)", got=str(rule.sense))
    if rule.count < 0:
        raise InvalidProblem(f"rule {index}: count must not be negative", got=str(rule.count))


def _check_pairs(pairs: Pairs, n: int, k: int) -> None:
    m = len(pairs.loss)
    if pairs.unit.shape != (m, 2) or pairs.format.shape != (m, 2):
        raise InvalidProblem("pair arrays have the wrong shape", expected=f"pair_unit and pair_format ({m}, 2)")
    if not m:
        return
    if not np.isfinite(pairs.loss).all():
        raise InvalidProblem("pair losses must be finite")
    if pairs.unit.min() < 0 or pairs.unit.max() >= n or pairs.format.min() < 0 or pairs.format.max() >= k:
        raise InvalidProblem("a pair index is out of range")
    if (pairs.unit[:, 0] == pairs.unit[:, 1]).any():
        raise InvalidProblem("a pair joins a unit with itself")


def compact_bits(size: Any, rate: Any, rate_den: int = 1) -> Resource:
    """The resource `bits` in compact form: cost[i, j] = size[i] * rate[j], in 1/rate_den bit."""
    return Resource("bits", size=np.asarray(size, np.int64), rate=np.asarray(rate, np.int64), rate_den=rate_den)


def from_arrays(arrays: Mapping[str, Any]) -> Problem:
    """A Problem from the named arrays of DESIGN section 5 (see `problem_file`)."""
    from bitwright.core.problem_file import problem_from_arrays

    return problem_from_arrays(arrays)
