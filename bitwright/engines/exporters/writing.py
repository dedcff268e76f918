"""Exporting a plan: the one way in, whatever the target."""

from __future__ import annotations

from inspect import signature
from typing import Any

from bitwright.core.errors import InvalidInput
from bitwright.core.plan import Plan
from bitwright.engines.exporters.catalog import EXPORTERS
from bitwright.engines.exporters.common import refuse_parts


def export_plan(plan: Plan, target: str, **options: Any) -> str:
    """The plan in the target's syntax. Raises UnknownName, InvalidInput, and Unsupported for what it cannot hold."""
    exporter = EXPORTERS.load(target)
    unknown = sorted(set(options) - set(signature(exporter).parameters))
    if unknown:
        raise InvalidInput(f"the export to {target} has no such option", got=", ".join(unknown)[:120])
    refuse_parts(plan, target)
    text: str = exporter(plan, **options)
    return text
