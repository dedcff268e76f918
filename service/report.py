"""`bitwright report`: the dashboard's page of a plan as one self-contained file, for a pull request or a model card."""

from __future__ import annotations

import base64
import gzip
from typing import Any

from bitwright.core.errors import BitwrightError, InvalidPlan
from bitwright.core.plan import Plan
from bitwright.core.table import SensitivityTable
from bitwright.engines import EXPORTERS
from bitwright.engines.columns import table_columns
from service.bundle import page
from service.menus import plan_menus


def report_html(plan: Plan, table: SensitivityTable | None, summary: str) -> str:
    """One HTML file. table: the plan's own, for stability, explanations and the frontier. summary: for no script.

    Raises InvalidPlan when the table is of another model.
    """
    if table is not None and table.inventory.digest != plan.model.digest:
        raise InvalidPlan(
            "the sensitivity table is of another model",
            expected=plan.model.digest,
            got=table.inventory.digest,
            hint="give the table that the plan names in its provenance",
        )
    data = {
        "plan": plan.to_json(),
        "digest": plan.digest,
        "targets": [entry.describe() for entry in EXPORTERS],
        "exports": {entry.name: _exported(plan, entry.name) for entry in EXPORTERS},
        "menus": plan_menus(plan),
        "table": None if table is None else packed(table_columns(table, str(plan.provenance.get("table", "")))),
    }
    return page(f"{plan.model.ref} · bitwright", summary, "report.js", data)


def packed(data: bytes) -> str:
    """gzip as base64: the same names in nine exports shrink to little. The same bytes for the same data."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _exported(plan: Plan, target: str) -> dict[str, Any]:
    """{"packed": ...}, or {"problem": ...} for what the target cannot say."""
    try:
        return {"packed": packed(EXPORTERS.load(target)(plan).encode())}
    except BitwrightError as error:
        return {"problem": error.to_problem()}
