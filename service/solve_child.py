"""A warm solver process: `python -m service.solve_child`. Reads frames on stdin, answers each on stdout.

It is the only part of the service that imports solvers, and it does so in a process of its own with limits on memory,
files and descriptors (research/06 C6). `service.frames` is the protocol.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any

import numpy as np

from bitwright.core.errors import BitwrightError, InvalidInput, InvalidPlan, InvalidProblem, Unsupported
from bitwright.core.npz import read_npz
from bitwright.core.offline import deny_network
from bitwright.core.problem import Problem
from bitwright.core.problem_file import problem_from_arrays, problem_from_json
from bitwright.core.table import SensitivityTable, load_table
from bitwright.engines import load_profile
from service.frames import read_frame, write_frame
from service.solve_bounds import Bounds
from service.solve_requests import Synchronous, parse_solve
from service.strict_json import parse_json_body


def limit_process(memory: int) -> None:
    """No core files, no files written, few descriptors, bounded address space, no network."""
    deny_network()
    for kind, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 64)):
        resource.setrlimit(kind, (value, value))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def answer(header: dict[str, Any], payload: bytes) -> dict[str, Any]:
    """The result of one request. Raises BitwrightError."""
    bounds = Bounds(**header["bounds"])
    if header["encoding"] == "npz":
        options: dict[str, Any] = {"problem": None, **header["options"]}
        problem = problem_from_arrays(read_npz(io.BytesIO(payload), max_bytes=bounds.bytes))
    else:
        options = parse_json_body(payload)
        problem = None
    request = parse_solve(header["operation"], options)
    if problem is None:
        problem = _problem(request, header, bounds)
    bounds.check_units(problem.n)
    for name, value in request.limits.items():
        problem = problem.with_limit(name, value)
    bounds.check(problem)
    return request.run(problem, float(header["seconds"]))


def _problem(request: Synchronous, header: dict[str, Any], bounds: Bounds) -> Problem:
    data: Any = request.problem
    table = request.table
    if (data is None) == (table is None):
        raise InvalidInput("name the problem once", expected="either 'problem' or 'table'")
    if table is None and request.engine is not None:
        raise InvalidInput(
            "an engine's menu can only be cut for a table: a problem does not say what its units are",
            errors=[{"pointer": "/engine", "message": "beside a problem"}],
        )
    if isinstance(data, str):
        return _stored(data, header, bounds)
    if table is None:
        if isinstance(data.get("loss"), list):
            bounds.check_units(len(data["loss"]))
        return problem_from_json(data)
    path = Path(header["tables"]) / table.removeprefix("sha256:")
    if not _may_use("tables", table, header) or not path.is_file():
        raise InvalidPlan(
            "this server has no sensitivity table of that digest",
            got=table,
            hint="the `sensitivities` link of a job names its table",
            errors=[{"pointer": "/table", "message": "unknown digest"}],
        )
    return _table_problem(load_table(path), request.ties, request.engine)


def _table_problem(table: SensitivityTable, ties: tuple[str, ...], engine: str | None) -> Problem:
    """Raises UnknownName for an engine, and Unsupported when it loads some unit in none of the table's formats."""
    if engine is None:
        return table.problem(None, tie_kinds=ties)
    profile, inventory = load_profile(engine), table.inventory
    allowed = np.array(profile.allowed(inventory, table.kinds), bool)
    finite = np.zeros_like(allowed)
    np.logical_or.at(finite, table.row_units, np.isfinite(table.loss))
    bare = np.flatnonzero(~(allowed & finite).any(axis=1))
    if bare.size:
        raise Unsupported(
            f"{profile.title} loads {bare.size} of the {len(inventory.units)} units in no format of this table",
            got=inventory.units[bare[0]].name,
            hint=f"start a plan job for {profile.name}: it keeps such units unquantized",
            errors=[{"pointer": "/engine", "message": "a unit has no format left"}],
        )
    return table.problem(None, tie_kinds=tuple(dict.fromkeys((*ties, *profile.tie_kinds))), allowed=allowed)


class _Asked(Exception):
    """Only the server knows whether the caller may use this file."""


def _may_use(kind: str, digest: str, header: dict[str, Any]) -> bool:
    """Raises _Asked where the server has not said yet."""
    told = header["may_use"]
    if told is None:
        raise _Asked(kind, digest)
    return bool(told)


def _stored(digest: str, header: dict[str, Any], bounds: Bounds) -> Problem:
    path = Path(header["problems"]) / digest.removeprefix("sha256:")
    if not _may_use("problems", digest, header) or not path.is_file():
        raise InvalidProblem(
            "this server has no problem file of that digest",
            got=digest,
            hint="upload it with POST /v1/problems first",
            errors=[{"pointer": "/problem", "message": "unknown digest"}],
        )
    return problem_from_arrays(read_npz(path, max_bytes=bounds.bytes))


def _serve_one(header: dict[str, Any], payload: bytes, out: IO[bytes]) -> None:
    # The soft limit moves along with what earlier requests have used; past it the kernel ends this process (SIGXCPU).
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + int(header["cpu_seconds"]), hard))
    try:
        found = answer(header, payload)
        certificate = found.get("certificate") or {}
        told = {"ok": True, "status": certificate.get("status"), "gap": certificate.get("gap")}
        write_frame(out, told, json.dumps(found, allow_nan=False).encode())
    except _Asked as question:
        write_frame(out, {"ok": False, "asks": question.args}, b"{}")
    except BitwrightError as error:
        write_frame(out, {"ok": False}, json.dumps(error.to_problem(), default=str).encode())
    except MemoryError:
        os._exit(3)
    except Exception:
        write_frame(out, {"ok": False, "trace": traceback.format_exc()[-4000:]}, b"{}")


def _exit_with_parent(parent: int) -> None:
    """A solve outlives a killed server by at most a second."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def main() -> None:
    """Keep the protocol's stream to ourselves (native libraries print), then serve until stdin closes."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    limit_process(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    np.seterr(all="ignore")
    from solvers import catalog  # noqa: F401  (warms the import before the first request)

    write_frame(out, {"ok": True, "ready": True}, b"")
    while (frame := read_frame(source)) is not None:
        _serve_one(*frame, out)


if __name__ == "__main__":
    main()
