"""The compiled part of the solvers, loaded with ctypes; absent (numpy is used instead) where it was never built."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import OutOfResources, Unsupported
from bitwright.core.problem import Sizes
from solvers.core_table import Core, Effort, Found
from solvers.native.place import HERE, library_path

#: Of a table. LATE: time ran out before a plan was found; the choice is a uniform plan or the cheapest one.
OPTIMAL, BOUNDED, INFEASIBLE, LATE = 0, 1, 2, 3
#: Tables up to this many rows are walked whole; longer ones are bracketed by a sample first.
FULL_ROWS = 1 << 14
#: States expanded in all: a second of work, counted so that answers do not depend on the clock. Twice as many proved no
#: more of 235 hard instances (equal and nearly equal slopes, repeated sizes, losses in no order).
WORK = 1 << 24
_INTS = np.ctypeslib.ndpointer(np.int64, flags="C_CONTIGUOUS")
_REALS = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")
#: slope, gap, bound and loss; then cost, passes, listed, core and states.
_ANSWER = struct.Struct("=4d5q")
_ANSWER_OUT, _INTS_AT = ctypes.c_char * _ANSWER.size, 4 * 8
UNKNOWN = Sizes(0, 0, 0, 0)
NO_CASES = np.zeros(0)


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None when it is not built, cannot be loaded here, or BITWRIGHT_NO_NATIVE is set."""
    path = library_path()
    if os.environ.get("BITWRIGHT_NO_NATIVE") or not path.is_file():
        return None
    try:
        found = ctypes.CDLL(str(path))
    except OSError:  # built for another machine: numpy serves
        return None
    i32, i64, real, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
    found.bw_core_search.argtypes = [
        i64, _INTS, _INTS, _REALS, real, i64, real, i64, i64, real, real, _INTS, _REALS,
    ]  # fmt: skip
    found.bw_core_search.restype = i32
    found.bw_solve_table.argtypes = [
        pointer, i32, i64, i32, pointer, pointer, i64, pointer, i64, i64, i64, i64, i32, i64, real, real, i32, i64,
        i64, real, real, ctypes.c_uint64, pointer, pointer, pointer,
    ]  # fmt: skip
    found.bw_solve_table.restype = i32
    found.bw_frontier.argtypes = [
        pointer, i32, i64, i32, pointer, i64, i64, i64, pointer, pointer, i32, real, i32, i32, _INTS, _REALS, _REALS,
    ]  # fmt: skip
    found.bw_frontier.restype = i32
    found.bw_cases.argtypes, found.bw_cases.restype = [pointer], i64
    found.bw_purse_spent.argtypes, found.bw_purse_spent.restype = [], real
    found.bw_looks_left.argtypes, found.bw_looks_left.restype = [i64], i64
    found.bw_uniform.argtypes = [pointer, i32, i64, i32, i32, _REALS]
    found.bw_uniform.restype = None
    found.bw_read.argtypes = [pointer, i64, i32]
    found.bw_read.restype = real
    return found


def required() -> ctypes.CDLL:
    """The library. Raises Unsupported where it is not there: for callers that have nothing else to fall back on."""
    found = library()
    if found is not None:
        return found
    if os.environ.get("BITWRIGHT_NO_NATIVE"):
        raise Unsupported("the native solvers are switched off", got="BITWRIGHT_NO_NATIVE", hint="unset it")
    what = "cannot be loaded on this machine" if library_path().is_file() else "is not built from these sources"
    raise Unsupported(
        f"the native solver library {what}",
        expected=library_path().name,
        got=", ".join(sorted(p.name for p in HERE.glob("libbitwright_solvers*.so"))) or "no library",
        hint="python -m solvers.native.build",
    )


def core_search(core: Core, slope: float, slack: int, gap: float, effort: Effort) -> Found:
    """`core_table.search_numpy`, compiled."""
    native = required()
    picked, out = np.empty(max(1, core.rows), np.int64), np.zeros(5)
    seconds = max(0.0, effort.end - time.monotonic())
    failed = native.bw_core_search(
        core.rows, core.start, np.ascontiguousarray(core.dcost), np.ascontiguousarray(core.penalty), slope, slack, gap,
        effort.states, effort.work, effort.tiny, seconds, picked, out,
    )  # fmt: skip
    if failed:
        raise OutOfResources("memory ran out in the core search", got=f"{core.rows} units in the core")
    count = int(out[4])
    return Found(float(out[0]), picked[:count].copy() if count else None, bool(out[1]), int(out[2]), int(out[3]))


def _address(array: NDArray[Any]) -> int:
    """`array.ctypes.data`, of a contiguous array that can be written at a third of its time: small tables notice."""
    if array.flags.writeable and array.size:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    return array.ctypes.data


class TableAnswer(NamedTuple):
    """choice (n,) uint8. status: OPTIMAL, BOUNDED, INFEASIBLE or LATE. slope: multiplier; gap: to the LP value `bound`.

    loss, cost: totals of the choice (cost exact). passes: reads of the whole table; listed: rows inside the bracket;
    core: units in the last core; states: most held. cases: for BOUNDED, numbers as in `bitwright.core.cases`, or none.
    """

    choice: NDArray[np.uint8]
    status: int
    slope: float
    gap: float
    bound: float
    loss: float
    cost: int
    passes: int
    listed: int
    core: int
    states: int
    cases: NDArray[np.float64] = NO_CASES


def solve_table(
    loss: NDArray[Any],
    limit: int,
    *,
    matrix: NDArray[np.int64] | None = None,
    size: NDArray[np.int64] | None = None,
    rate: NDArray[np.int64] | None = None,
    sizes: Sizes | None = None,
    mapped: bool = False,
    seconds: float = 10.0,
    after: float = 0.0,
    seed: int = 0,
    threads: int = 1,
    full_rows: int = FULL_ROWS,
    near: tuple[float, float] = (0.0, np.inf),
) -> TableAnswer:
    """One limit over a whole table, resident or memory-mapped: loss (n, k) float32 or float64, costs as in `Resource`.

    sizes: what is known of `size` (else it is scanned once more). mapped: the arrays lie in read-only files, whose
    pages are given back once read. near: where the multiplier is looked for first (elsewhere if it is not there).
    after: what the processor needs of the seconds for what comes after.
    Raises OutOfResources when memory ran out, Unsupported without the library.
    """
    native = required()
    loss = np.ascontiguousarray(loss)
    n, k = loss.shape
    known = UNKNOWN if sizes is None else sizes
    if sizes is not None and sizes.least == sizes.most:
        size = None
    keep = [None if a is None else np.ascontiguousarray(a, np.int64) for a in (matrix, size, rate)]
    pointers = [None if a is None else _address(a) for a in keep]
    choice, out = np.empty(n, np.uint8), _ANSWER_OUT()
    reals = ctypes.addressof(out)
    status = native.bw_solve_table(
        _address(loss), loss.itemsize == 4, n, k, pointers[0], pointers[1], known.most, pointers[2], known.total,
        known.most, known.least, known.divisor, mapped, limit, *near, threads, full_rows, WORK, seconds, after,
        seed & (2**64 - 1), _address(choice), reals, reals + _INTS_AT,
    )  # fmt: skip
    if status not in (OPTIMAL, BOUNDED, INFEASIBLE, LATE):
        raise OutOfResources("memory ran out in the knapsack solver", got=f"{n} units, {k} formats")
    answer = TableAnswer(choice, status, *_ANSWER.unpack(out))
    return answer._replace(cases=_cases(native)) if status == BOUNDED else answer


def _cases(native: ctypes.CDLL) -> NDArray[np.float64]:
    """Of the table that this thread has just solved."""
    found = np.empty(native.bw_cases(None))
    if len(found):
        native.bw_cases(_address(found))
    return found


@dataclass(frozen=True, eq=False)
class Slopes:
    """cost, saved: of the hull steps of all rows in each stretch of slopes, by rising slope.

    edge: (m + 1,) slopes between the stretches; last: loss of the last vertices. Slopes, and what they save, are right
    to a share SINGLE; costs are exact. forced: of steps that every plan takes, since what is before them is forbidden.
    """

    cost: NDArray[np.int64]
    saved: NDArray[np.float64]
    edge: NDArray[np.float64]
    last: float
    forced: int


#: A slope of single precision is a difference times an inverse, three roundings of 2^-24; it errs twice: in what it
#: saves, and in the side of an edge that it is on. Of what it saves 20 bits are kept.
SINGLE = 2.0**-20


def frontier(
    loss: NDArray[Any],
    order: NDArray[np.int32],
    *,
    size: NDArray[np.int64] | None,
    rate: NDArray[np.int64],
    sizes: Sizes,
    scale: float,
    regular: bool = True,
    mapped: bool = False,
    threads: int = 1,
) -> Slopes:
    """Hull steps of a whole table by slope, in one pass. order: formats by rising rate; scale: brings slopes near 1.

    regular: no loss is infinite, and no two rates are equal.

    Raises OutOfResources when memory ran out, Unsupported without the library.
    """
    native = required()
    loss, rate = np.ascontiguousarray(loss), np.ascontiguousarray(rate, np.int64)
    n, k = loss.shape
    same = sizes.least == sizes.most or size is None
    wide = None if same else np.ascontiguousarray(size, np.int64)
    stretches = native.bw_stretches()
    cost, saved, last = np.zeros(stretches, np.int64), np.zeros(stretches), np.zeros(1)
    failed = native.bw_frontier(
        loss.ctypes.data, int(loss.dtype == np.float32), n, k, None if wide is None else wide.ctypes.data,
        sizes.most, min(sizes.total, 2**63 - 1), sizes.divisor, rate.ctypes.data, order.ctypes.data,
        int(regular), scale, int(mapped), threads, cost, saved, last,
    )  # fmt: skip
    if failed:
        raise OutOfResources("memory ran out in the frontier", got=f"{n} units, {k} formats")
    # A stretch is the leading bits of a float.
    bits = (np.arange(stretches + 1, dtype=np.uint32) << np.uint32(23 - native.bw_share())).clip(max=0x7F800000)
    edge = bits.view(np.float32).astype(np.float64) / scale
    infinite = np.isinf(edge[:-1])
    forced, cost[infinite] = int(cost[infinite].sum()), 0
    return Slopes(cost, saved, edge, float(last[0]), forced)


def uniform_losses(loss: NDArray[Any], mapped: bool = False) -> NDArray[np.float64]:
    """Loss of each uniform plan, (k,), in one pass. Raises Unsupported without the library."""
    native = required()
    loss = np.ascontiguousarray(loss)
    sums = np.zeros(loss.shape[1])
    native.bw_uniform(loss.ctypes.data, int(loss.dtype == np.float32), *loss.shape, int(mapped), sums)
    return sums


def read_seconds(array: NDArray[Any], threads: int = 1) -> float:
    """Seconds of one streaming read of an array: the physical limit of any solver of that table."""
    native = required()
    begin = time.perf_counter()
    native.bw_read(array.ctypes.data, array.nbytes // 8, threads)
    return time.perf_counter() - begin
