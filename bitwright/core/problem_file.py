"""Problem files: `.npz` without pickles, and JSON for up to 20,000 units. Layout: DESIGN section 5, docs/problem.md.

Beyond DESIGN's table:
    rule_subset   int64 (m, 2)   rows (rule, unit)          rule_format  int64 (p, 2)   rows (rule, format)
    rule_sense    int64 (r,)     1 at least, -1 at most      rule_count   int64 (r,)
    pair_unit     int64 (m, 2)   pair_format int64 (m, 2)    pair_loss    float64 (m,)
    limit_<resource>@<subset>    scalar, with subset_<subset> int64 (u,): a limit over some units only
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import atomic_write
from bitwright.core.errors import BitwrightError, InvalidProblem
from bitwright.core.npz import read_npz
from bitwright.core.problem import Limit, Pairs, Problem, Resource, Rule, compact_bits
from bitwright.core.problem_check import as_array, integers

MAX_JSON_UNITS = 20_000
MAX_JSON_BYTES = 256 * 2**20
_KNOWN = {"loss", "size", "rate", "rate_den", "tie", "unit_names", "format_names", "rule_subset", "rule_format",
          "rule_sense", "rule_count", "pair_unit", "pair_format", "pair_loss"}  # fmt: skip


def load_problem(path: str | Path) -> Problem:
    """Read a `.npz` or `.json` problem file. Raises InvalidProblem, never anything else, for bad content."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic[:2] == b"PK":
            return problem_from_arrays(read_npz(path))
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InvalidProblem("the file is too large for JSON", expected="an .npz file beyond 20,000 units")
        return problem_from_json(parse_json(path.read_bytes()))
    except BitwrightError:
        raise
    except FileNotFoundError as error:
        raise InvalidProblem("there is no such problem file", got=str(path)) from error
    except OSError as error:
        raise InvalidProblem("the problem file cannot be read", got=f"{path}: {error.strerror}") from error


def _integers(arrays: Mapping[str, Any], name: str) -> NDArray[np.int64]:
    return integers(arrays[name], name)


def _scalar(arrays: Mapping[str, Any], name: str) -> int | float:
    array = as_array(arrays[name], name)
    if array.size != 1 or not _is_real(array):
        raise InvalidProblem(f"'{name}' must be one number", got=f"{array.dtype} {array.shape}")
    value = array.reshape(()).item()
    return int(value) if isinstance(value, int) else float(value)


def _names(arrays: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    if name not in arrays:
        return None
    array = as_array(arrays[name], name)
    if array.ndim != 1 or array.dtype.kind != "U":
        raise InvalidProblem(f"'{name}' must be a list of unicode names", got=f"{array.dtype} {array.shape}")
    return tuple(array.tolist())


def problem_from_arrays(arrays: Mapping[str, Any]) -> Problem:
    """Problem from named arrays (numpy or anything `np.asarray` takes)."""
    if "loss" not in arrays:
        raise InvalidProblem("the problem has no 'loss' array", got=", ".join(sorted(arrays)) or "no arrays")
    named = _KNOWN.union(a for a in map(str, arrays) if a.startswith(("cost_", "limit_", "subset_", "meta")))
    unknown = [str(a) for a in arrays if a not in named]
    if unknown:
        raise InvalidProblem(
            "unknown array names", got=", ".join(sorted(unknown))[:200], expected="see docs/problem.md"
        )
    unused = [a for a in arrays if a.startswith("subset_") and not any(b.endswith(f"@{a[7:]}") for b in arrays)]
    if unused:
        raise InvalidProblem("a subset belongs to no limit", got=unused[0][:80], expected="limit_<resource>@<subset>")
    if "cost_" in arrays:
        raise InvalidProblem("a cost needs the name of its resource", expected="cost_<resource>", got="cost_")
    resources = [Resource(a[5:], matrix=_cost(arrays[a], a)) for a in sorted(arrays) if a.startswith("cost_")]
    if "size" in arrays or "rate" in arrays:
        if "size" not in arrays or "rate" not in arrays:
            raise InvalidProblem("'size' and 'rate' belong together")
        den = _scalar(arrays, "rate_den") if "rate_den" in arrays else 1
        if not isinstance(den, int):
            raise InvalidProblem("'rate_den' must be an integer", got=repr(den))
        resources.insert(0, compact_bits(_integers(arrays, "size"), _integers(arrays, "rate"), den))
    loss = as_array(arrays["loss"], "loss")
    if loss.dtype not in (np.float32, np.float64) and _is_real(loss):
        loss = _doubles(loss, "loss")
    return Problem(
        loss=loss,
        resources=tuple(resources),
        limits=tuple(_limits(arrays)),
        tie=_integers(arrays, "tie") if "tie" in arrays else None,
        rules=_rules(arrays),
        pairs=_pairs(arrays),
        unit_names=_names(arrays, "unit_names"),
        format_names=_names(arrays, "format_names"),
    )


def _is_real(array: NDArray[Any]) -> bool:
    """Numbers, by their kind: to numpy's hierarchy of types a span of time is a signed integer too."""
    return array.dtype.kind in "iuf"


def _cost(value: Any, name: str) -> NDArray[Any]:
    array = as_array(value, name)
    if array.dtype.kind in "iu":
        return integers(array, name)
    return _doubles(array, name) if array.dtype.kind == "f" else array


def _doubles(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    """float64; what is finite must stay finite, or a large number would silently forbid a cell."""
    with np.errstate(over="ignore"):
        found = array.astype(np.float64)
    if array.dtype.kind == "f" and (np.isinf(found) & ~np.isinf(array)).any():
        raise InvalidProblem(f"'{name}' does not fit float64")
    return found


def _limits(arrays: Mapping[str, Any]) -> list[Limit]:
    limits = []
    for name in sorted(a for a in arrays if a.startswith("limit_")):
        resource, at, subset = name[6:].partition("@")
        units = None
        if at and not subset:
            raise InvalidProblem(f"'{name}' names no subset", expected="limit_<resource>@<subset>")
        if subset:
            if f"subset_{subset}" not in arrays:
                raise InvalidProblem(
                    f"'{name}' names a subset that is not there", expected=f"an array 'subset_{subset}'"
                )
            units = _integers(arrays, f"subset_{subset}")
        limits.append(Limit(resource, _scalar(arrays, name), subset or None, units))
    return limits


def _rules(arrays: Mapping[str, Any]) -> tuple[Rule, ...]:
    names = ("rule_subset", "rule_format", "rule_sense", "rule_count")
    present = [name for name in names if name in arrays]
    if not present:
        return ()
    if len(present) != len(names):
        raise InvalidProblem("rule arrays belong together", expected=", ".join(names), got=", ".join(present))
    subset, formats, sense, count = (_integers(arrays, name) for name in names)
    if subset.ndim != 2 or formats.ndim != 2 or subset.shape[1:] != (2,) or formats.shape[1:] != (2,):
        raise InvalidProblem("rule_subset and rule_format must have two columns")
    if sense.ndim != 1 or sense.shape != count.shape:
        raise InvalidProblem("rule_sense and rule_count must be lists of one length")
    owners = np.concatenate([subset[:, 0], formats[:, 0]])
    if owners.size and (owners.min() < 0 or owners.max() >= len(sense)):
        raise InvalidProblem("a rule index is out of range", expected=f"0 .. {len(sense) - 1}")
    return tuple(
        Rule(subset[subset[:, 0] == r, 1], formats[formats[:, 0] == r, 1], int(sense[r]), int(count[r]))
        for r in range(len(sense))
    )


def _pairs(arrays: Mapping[str, Any]) -> Pairs:
    names = ("pair_unit", "pair_format", "pair_loss")
    present = [name for name in names if name in arrays]
    if not present:
        return Pairs()
    if len(present) != len(names):
        raise InvalidProblem("pair arrays belong together", expected=", ".join(names), got=", ".join(present))
    loss = as_array(arrays["pair_loss"], "pair_loss")
    if loss.ndim != 1 or not _is_real(loss):
        raise InvalidProblem("pair_loss must be a list of numbers")
    return Pairs(_integers(arrays, "pair_unit"), _integers(arrays, "pair_format"), _doubles(loss, "pair_loss"))


def problem_to_arrays(problem: Problem) -> dict[str, NDArray[Any]]:
    """The inverse of `problem_from_arrays`."""
    arrays: dict[str, NDArray[Any]] = {"loss": problem.loss}
    for r in problem.resources:
        if r.matrix is not None:
            arrays[f"cost_{r.name}"] = r.matrix
        else:
            assert r.size is not None
            assert r.rate is not None
            arrays.update(size=r.size, rate=r.rate, rate_den=np.int64(r.rate_den))  # type: ignore[call-overload]
    for m in problem.limits:
        arrays[f"limit_{m.name}"] = np.asarray(m.value)
        if m.units is not None:
            arrays[f"subset_{m.subset}"] = m.units
    if problem.tie is not None:
        arrays["tie"] = problem.tie
    if problem.rules:
        arrays["rule_subset"] = np.array(
            [(r, u) for r, rule in enumerate(problem.rules) for u in rule.units], np.int64
        ).reshape(-1, 2)
        arrays["rule_format"] = np.array(
            [(r, f) for r, rule in enumerate(problem.rules) for f in rule.formats], np.int64
        ).reshape(-1, 2)
        arrays["rule_sense"] = np.array([rule.sense for rule in problem.rules], np.int64)
        arrays["rule_count"] = np.array([rule.count for rule in problem.rules], np.int64)
    if len(problem.pairs):
        arrays.update(pair_unit=problem.pairs.unit, pair_format=problem.pairs.format, pair_loss=problem.pairs.loss)
    for name, names in (("unit_names", problem.unit_names), ("format_names", problem.format_names)):
        if names is not None:
            arrays[name] = np.array(names, dtype=np.str_)
    return arrays


def save_problem(problem: Problem, path: str | Path) -> None:
    """Write `.npz` (or `.json` when the name says so), atomically."""
    path = Path(path)
    with atomic_write(path) as file:
        if path.suffix == ".json":
            file.write(json.dumps(problem_to_json(problem)).encode())
        else:
            np.savez(file, **problem_to_arrays(problem))  # type: ignore[arg-type]


def parse_json(data: bytes) -> Any:
    """JSON with NaN, Infinity and members that stand twice refused; raises InvalidProblem."""

    def refuse(token: str) -> Any:
        raise InvalidProblem("JSON numbers must be finite", got=token, hint='write null or "inf" for a forbidden cell')

    def finite(text: str) -> float:
        return value if math.isfinite(value := float(text)) else refuse(text)

    def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(members)
        if len(found) != len(members):
            twice = next(name for i, (name, _) in enumerate(members) if name in dict(members[:i]))
            raise InvalidProblem("a member of a JSON object stands twice", got=repr(twice)[:80])
        return found

    try:
        return json.loads(data, parse_constant=refuse, parse_float=finite, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise InvalidProblem("the JSON cannot be read", got=str(error)[:120]) from error


def problem_from_json(data: Any) -> Problem:
    """Problem from the JSON form: the same names as lists; null or "inf" in `loss` forbids the cell."""
    if not isinstance(data, dict):
        raise InvalidProblem("a problem is a JSON object", got=type(data).__name__)
    loss = data.get("loss")
    if not isinstance(loss, list) or len(loss) > MAX_JSON_UNITS:
        raise InvalidProblem(
            "'loss' must be a list of rows", expected=f"at most {MAX_JSON_UNITS} rows; .npz beyond that"
        )
    arrays = {key: value for key, value in data.items() if value is not None}
    try:
        arrays["loss"] = np.array([_losses(row) for row in loss], np.float64)
        for key, value in data.items():
            if key in {"unit_names", "format_names"} and value is not None:
                if not isinstance(value, list) or not all(isinstance(v, str) and "\0" not in v for v in value):
                    raise InvalidProblem(f"'{key}' must be a list of names", got=repr(value)[:80])
                arrays[key] = np.array(value, dtype=np.str_)
            elif key != "loss" and isinstance(value, list):
                arrays[key] = (
                    np.array(value)
                    if value
                    else np.zeros(
                        (0, 2) if key in {"rule_subset", "rule_format", "pair_unit", "pair_format"} else 0, np.int64
                    )
                )
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidProblem("a problem array is ragged or not numeric", got=str(error)[:120]) from error
    return problem_from_arrays(arrays)


def _losses(row: Any) -> list[float]:
    """One row: numbers, and null or "inf" for a forbidden cell. numpy alone would take "2", "nan" and true as well."""
    if not isinstance(row, list):
        raise InvalidProblem("'loss' must be a list of rows", got=repr(row)[:80])
    cells = [math.inf if v is None or v == "inf" else v for v in row]
    if not {*map(type, cells)} <= {int, float}:
        strange = next(v for v in cells if type(v) not in (int, float))
        raise InvalidProblem("a loss is no number", expected='a number, null or "inf"', got=repr(strange)[:80])
    return cells


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """JSON form; forbidden cells become null."""
    data: dict[str, Any] = {k: v.tolist() for k, v in problem_to_arrays(problem).items()}
    data["loss"] = [[None if math.isinf(v) else v for v in row] for row in data["loss"]]
    return data
