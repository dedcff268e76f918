"""`bitwright report`: the dashboard's page of a plan as one self-contained file, for a pull request or a model card."""

from __future__ import annotations

from typing import Any

from bitwright.core.errors import BitwrightError, InvalidPlan
from bitwright.core.plan import Plan
from bitwright.core.table import SensitivityTable
from bitwright.engines import EXPORTERS
from service.bundle import page
from service.documents import table_document
from service.menus import menus_document, plan_menus

#: A larger plan's exports are left to `bitwright export`: each would repeat every name.
MAX_EXPORTED_UNITS = 5_000


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
        "table": None if table is None else table_document(table),
        "table_menus": None if table is None else menus_document(table.inventory, table.formats),
    }
    return page(f"{plan.model.ref} · bitwright", summary, "report.js", data)


def _exported(plan: Plan, target: str) -> dict[str, Any]:
    """{"text": ...}, or {"problem": ...} for what the target cannot say."""
    if len(plan.units) > MAX_EXPORTED_UNITS:
        words = f"reports hold exports of up to {MAX_EXPORTED_UNITS} units"
        hint = f"bitwright export plan.json --to {target}"
        return {"problem": {"title": "Not in this file", "detail": words, "hint": hint}}
    try:
        return {"text": EXPORTERS.load(target)(plan)}
    except BitwrightError as error:
        return {"problem": error.to_problem()}
