"""What makes a `Problem` valid. Everything here raises InvalidProblem with what was expected and what was found."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.blocks import blocks
from bitwright.core.errors import InvalidProblem

if TYPE_CHECKING:
    from bitwright.core.problem import FloatArray, IntArray, Limit, Pairs, Problem, Resource, Rule

MAX_FORMATS = 64
MAX_NAME = 256
INT64_MAX = 2**63 - 1
#: Largest magnitude of a total in float64: differences and priced sums of totals then still fit.
LARGEST = 1e305


def validate(p: Problem) -> None:
    """Everything that `problem` promises."""
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
    forbids = p.extremes.forbids
    _check_names("unit", p.unit_names, n)
    _check_names("format", p.format_names, k)
    if p.tie is not None and (_dtype(p.tie).kind not in "iu" or p.tie.shape != (n,)):
        raise InvalidProblem("tie must hold one integer a unit", expected=f"int64 ({n},)", got=_shown(p.tie))
    for resource in p.resources:
        _check_resource(resource, n, k)
    if len({r.name for r in p.resources}) != len(p.resources):
        raise InvalidProblem("two resources share a name")
    check_limits(p)
    for index, rule in enumerate(p.rules):
        _check_rule(rule, index, n, k)
    _check_pairs(p.pairs, n, k)
    _check_magnitudes(p)
    if forbids:
        _check_allowed(p)


def _dtype(value: Any) -> np.dtype[Any]:
    """That of an array; "void" for what is none, so that a list or None is refused like an array of a wrong type."""
    return value.dtype if isinstance(value, np.ndarray) else np.dtype("V")


def _shown(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def as_array(values: Any, name: str) -> NDArray[Any]:
    """`np.asarray`; what is ragged or too long a number is refused."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidProblem(f"'{name}' is ragged or not numeric", got=str(error)[:120]) from error


def integers(values: Any, name: str) -> NDArray[np.int64]:
    """int64 from integers of any width. Fractions are refused, not cut off."""
    array = as_array(values, name)
    if array.dtype.kind not in "iu":
        if array.size == 0:
            return array.astype(np.int64)
        raise InvalidProblem(f"'{name}' must hold integers", expected="int64", got=str(array.dtype))
    if array.dtype == np.uint64 and array.size and int(array.max()) > INT64_MAX:
        raise InvalidProblem(f"'{name}' does not fit int64")
    return np.ascontiguousarray(array, np.int64)


def whole_numbers(values: Any, name: str) -> NDArray[np.int64]:
    """`integers`, and floats without a fraction."""
    array = as_array(values, name)
    if array.dtype.kind != "f":
        return integers(array, name)
    if not ((np.abs(array) < 2.0**63) & (array == np.rint(array))).all():
        raise InvalidProblem(f"'{name}' must hold whole numbers within int64")
    return array.astype(np.int64)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_magnitudes(p: Problem) -> None:
    """Totals stay inside float64: a sum that overflows to infinity would be a wrong answer, not a large one."""
    with np.errstate(over="ignore"):
        total = p.n * max(abs(p.extremes.least), abs(p.extremes.greatest)) + float(np.abs(p.pairs.loss).sum())
    if not total <= LARGEST:
        raise InvalidProblem(
            "the losses overflow float64 when they are added up",
            expected=f"a total of at most {LARGEST}", got=str(total), hint="use a larger unit of loss",
        )  # fmt: skip
    for r in p.resources:
        if r.matrix is not None and not r.integral and not p.n * float(r.matrix.max()) <= LARGEST:
            raise InvalidProblem(f"the total of cost_{r.name} overflows float64", hint="use a larger unit of cost")


def _check_allowed(p: Problem) -> None:
    if p.tie is None:
        parts = (~np.isfinite(part).any(axis=1) for part in blocks(p.loss))
        empty = np.flatnonzero(np.concatenate(list(parts)))
    else:
        allowed = np.ones((p.groups, p.k), bool)
        np.logical_and.at(allowed, p.group_index, np.isfinite(p.loss))
        empty = np.flatnonzero(np.isin(p.group_index, np.flatnonzero(~allowed.any(axis=1))))
    if len(empty):
        unit = int(empty[0])
        name = p.unit_names[unit] if p.unit_names else f"unit {unit}"
        raise InvalidProblem(
            "a unit (or its tie group) may take no format at all", got=name, hint="leave one finite loss a row"
        )


def check_limits(p: Problem) -> None:
    """The limits alone: resources exist, values are finite, names are unique."""
    for limit in p.limits:
        _check_limit(p, limit)
    if len({m.name for m in p.limits}) != len(p.limits):
        raise InvalidProblem("two limits share a name")


def _check_names(kind: str, names: tuple[str, ...] | None, count: int) -> None:
    if names is None:
        return
    if len(names) != count:
        raise InvalidProblem(f"{kind}_names has the wrong length", expected=str(count), got=str(len(names)))
    if not all(isinstance(name, str) for name in names):
        raise InvalidProblem(f"{kind} names must be text", got=repr(names)[:80])
    strange = next((name for name in names if not name.isprintable()), None)
    if strange is not None:
        raise InvalidProblem(
            f"a {kind} name holds control characters", expected="printable text", got=repr(strange)[:80]
        )
    if len(set(names)) != count:
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InvalidProblem(f"two {kind}s share a name", got=repr(twice)[:80])
    for name in names:
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise InvalidProblem(
                f"a {kind} name cannot be used", expected=f"1 to {MAX_NAME} printable characters", got=repr(name)[:80]
            )


def _check_resource(r: Resource, n: int, k: int) -> None:
    if r.matrix is not None:
        if _dtype(r.matrix) not in (np.int64, np.float64):
            raise InvalidProblem(f"cost_{r.name} has the wrong type", expected="int64 or float64", got=_shown(r.matrix))
        if r.matrix.shape != (n, k):
            raise InvalidProblem(f"cost_{r.name} has the wrong shape", expected=f"({n}, {k})", got=str(r.matrix.shape))
        if not np.isfinite(r.matrix).all() or (r.matrix < 0).any():
            raise InvalidProblem(f"cost_{r.name} must be finite and not negative")
        if r.integral and _max_total(r.matrix) > INT64_MAX:
            raise InvalidProblem(f"the total of cost_{r.name} overflows int64", hint="use a larger unit of cost")
        return
    # int64 and nothing narrower: products and sums of int32 would wrap around in silence.
    whole = _dtype(r.size) == _dtype(r.rate) == np.int64 and _is_whole(r.rate_den)
    if r.size is None or r.rate is None or not whole:
        raise InvalidProblem("size, rate and rate_den must be int64", got=f"{_shown(r.size)}, {_shown(r.rate)}")
    if r.size.shape != (n,) or r.rate.shape != (k,):
        raise InvalidProblem("size and rate have the wrong shape", expected=f"size ({n},), rate ({k},)")
    if r.sizes.least < 0 or (r.rate < 0).any() or r.rate_den < 1:
        raise InvalidProblem("size and rate must not be negative, and rate_den at least 1")
    if r.sizes.total * int(r.rate.max()) > INT64_MAX:
        raise InvalidProblem(
            "the total of size x rate overflows int64", hint="divide the sizes by their common divisor"
        )


def _max_total(matrix: NDArray[Any]) -> int:
    top = matrix.max(axis=1)
    high, low = int((top >> 32).sum()), int((top & 0xFFFFFFFF).sum())
    return (high << 32) + low


def _check_limit(p: Problem, limit: Limit) -> None:
    resource = p.resource(limit.resource)
    # numpy's own floats are no `float`, so the value is looked at, whatever its type.
    if not isinstance(limit.value, Real) or isinstance(limit.value, bool) or limit.value != limit.value:
        raise InvalidProblem(f"limit_{limit.name} must be a finite number", got=repr(limit.value)[:80])
    if abs(limit.value) > (INT64_MAX if resource.integral else LARGEST):
        raise InvalidProblem(f"limit_{limit.name} must be finite and in range", got=repr(limit.value)[:80])
    if limit.units is None and limit.subset is not None:
        raise InvalidProblem(f"limit {limit.name} names a subset, but not its units")
    if limit.units is not None:
        _check_indices(f"subset of limit {limit.name}", limit.units, p.n)


def _check_indices(what: str, indices: IntArray, bound: int) -> None:
    if _dtype(indices).kind not in "iu" or indices.ndim != 1:
        raise InvalidProblem(f"{what}: indices must be an array of integers", got=_shown(indices))
    if len(indices) and (indices.min() < 0 or indices.max() >= bound):
        raise InvalidProblem(f"{what}: an index is out of range", expected=f"0 .. {bound - 1}")
    if len(np.unique(indices)) != len(indices):
        raise InvalidProblem(f"{what}: an index stands twice")


def _check_rule(rule: Rule, index: int, n: int, k: int) -> None:
    _check_indices(f"rule {index} units", rule.units, n)
    _check_indices(f"rule {index} formats", rule.formats, k)
    if not (_is_whole(rule.sense) and _is_whole(rule.count)):
        words = f"rule {index}: sense and count must be whole numbers"
        raise InvalidProblem(words, got=f"{rule.sense!r}, {rule.count!r}"[:80])
    if rule.sense not in (1, -1):
        raise InvalidProblem(f"rule {index}: sense must be 1 (at least) or -1 (at most)", got=str(rule.sense))
    if rule.count < 0:
        raise InvalidProblem(f"rule {index}: count must not be negative", got=str(rule.count))


def _check_pairs(pairs: Pairs, n: int, k: int) -> None:
    parts = (getattr(pairs, name, None) for name in ("unit", "format", "loss"))
    if "".join(_dtype(part).kind for part in parts) not in ("iif", "uuf", "iuf", "uif"):
        raise InvalidProblem("pair terms must be arrays: integers for units and formats, floats for losses")
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


def extremes(loss: FloatArray) -> tuple[float, float, bool]:
    """Least and greatest finite loss, whether one is inf. Raises InvalidProblem for NaN and -inf."""
    least, greatest, forbids, at = math.inf, -math.inf, False, 0
    for part in blocks(loss):
        low, high = float(part.min()), float(part.max())
        if math.isnan(low):
            row, column = np.argwhere(np.isnan(part))[0]
            expected = "finite, or inf for a forbidden cell"
            raise InvalidProblem("a loss is NaN", expected=expected, got=f"loss[{at + row}, {column}]")
        if low == -math.inf:
            raise InvalidProblem("a loss is -inf", expected="finite, or inf for a forbidden cell", got="-inf")
        if high == math.inf:
            forbids, finite = True, part[np.isfinite(part)]
            high = float(finite.max()) if finite.size else -math.inf
        least, greatest, at = min(least, low), max(greatest, high), at + len(part)
    return (least, greatest, forbids) if greatest > -math.inf else (0.0, 0.0, forbids)
