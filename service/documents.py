"""Stored plans and sensitivity tables as the API shows them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.certificate import Verdict
from bitwright.core.claim import Certificate
from bitwright.core.errors import InvalidInput, InvalidPlan, NotFound, VerificationFailed
from bitwright.core.plan import plan_from_json
from bitwright.core.plan_check import verify_plan
from bitwright.core.problem_file import problem_from_json
from bitwright.core.solution import solution_from_json, verify_solution
from bitwright.core.table import SensitivityTable, load_table
from bitwright.engines.columns import table_head
from bitwright.engines.proving import plan_problem
from bitwright.jobs.blobs import BlobStore
from service.replies import json_bytes

#: Tables kept ready as JSON: one for each of the few models that people look at.
CACHED_TABLES = 4


def stored_plan(blobs: BlobStore, digest: str) -> Path:
    path = blobs.path("plans", digest)
    if not path.is_file():
        raise NotFound(
            "there is no plan of that digest", got=digest, hint="GET /v1/jobs lists the jobs and their plans"
        )
    return path


def stored_table(blobs: BlobStore, digest: str) -> Path:
    path = blobs.path("tables", digest)
    if not path.is_file():
        raise NotFound("there is no sensitivity table of that digest", got=digest)
    return path


@lru_cache(maxsize=CACHED_TABLES)
def table_json(path: Path, digest: str) -> bytes:
    """A stored table for people and pictures: losses, standard errors (null: forbidden or unknown), bytes, names."""
    table = load_table(path).by_unit()
    return json_bytes({"digest": digest, **table_document(table)})


def table_document(table: SensitivityTable) -> dict[str, Any]:
    inventory = table.inventory
    units = [
        {
            "name": u.name,
            "module": u.module,
            "layer": u.layer,
            "expert": u.expert,
            "shape": list(u.shape),
            "elements": u.elements,
            "families": dict(u.families),
        }
        for u in inventory.units
    ]
    return {
        **table_head(table),
        "units": units,
        "loss": _rows(table.loss),
        "stderr": _rows(table.stderr),
        "cost_bytes": table.cost_bytes().tolist(),
    }


def _rows(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    if np.isfinite(matrix).all():
        rows: list[list[float | None]] = matrix.tolist()
        return rows
    return [[value if math.isfinite(value) else None for value in row] for row in matrix.tolist()]


def verify_document(data: Any, table_of: Callable[[str], Path]) -> Verdict:
    """Check {plan | solution, problem?, table?} with `bitwright.core.certificate` alone.

    table_of: where the table of a digest lies, for those who may use it. Raises InvalidInput and its kin.
    """
    if not isinstance(data, dict):
        raise InvalidInput(
            "the body must be an object", expected="plan or solution, and problem", got=type(data).__name__
        )
    unknown = sorted(set(data) - {"plan", "solution", "problem", "table"})
    if unknown or ("plan" in data) == ("solution" in data):
        raise InvalidInput(
            "name what is to be verified once",
            expected="either plan or solution; problem or table beside it",
            got=", ".join(map(str, data))[:120] or "an empty object",
            errors=[{"pointer": f"/{name}"[:80], "message": "unknown member"} for name in unknown[:10]],
        )
    if "solution" in data:
        if data.get("problem") is None:
            raise InvalidInput("a solution can only be verified against its problem", expected="a member 'problem'")
        solution, problem = solution_from_json(data["solution"]), problem_from_json(data["problem"])
        return _told(lambda: verify_solution(problem, solution), solution.certificate)
    plan = plan_from_json(data["plan"])
    certificate = Certificate.from_json(plan.certificate)
    if data.get("problem") is not None:
        problem = problem_from_json(data["problem"])
        return _told(lambda: verify_plan(plan, problem), certificate)
    digest = data.get("table")
    if digest is None:
        return _told(lambda: verify_plan(plan), certificate)
    if not isinstance(digest, str):
        raise InvalidPlan("the table is named by its digest", got=repr(digest)[:80])
    table = load_table(table_of(digest))
    verdict = _told(lambda: verify_plan(plan, plan_problem(plan, table)), certificate)
    if plan.model.digest == table.inventory.digest:
        return verdict
    other = f"the table was made for the model {table.inventory.digest}, the plan names {plan.model.digest}"
    return Verdict(False, (*verdict.failures, other), verdict.notes, verdict.certificate)


def _told(check: Callable[[], Verdict], claimed: Certificate) -> Verdict:
    """A claim so wrong that nothing can be computed from it (a negative multiplier, say) is a failed check too."""
    try:
        return check()
    except VerificationFailed as error:
        got = f": {error.got}" if error.got else ""
        return Verdict(False, (f"{error.detail}{got}",), (), claimed)
