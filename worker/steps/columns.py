"""Columns of sensitivity tables, kept one by one: a new format computes its own column and no other.

What is measured of a cell depends on its unit and format alone, so tables of some formats are put together from columns
of others, whatever run they came from (up to float32 rounding: how many formats are scored together decides in which
order products are summed); cells that are pooled over formats are pooled anew (sensitivity.pooling). Not so for finer
granularities, whose parts depend on the whole menu, and for metrics that pool columns (traits `pools`, `target`) or
choose their effort by all of them (option `relative_error`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bitwright.core.canonical import digest_json
from bitwright.core.mixed_format import is_finer
from bitwright.core.table import SensitivityTable, load_table
from sensitivity.catalog import METRICS
from sensitivity.pooling import pooled
from sensitivity.response import Response, joined
from worker.steps.context import Context
from worker.steps.menu import Menu


def by_column(menu: Menu) -> bool:
    """Whether the columns of a table of this menu stand alone."""
    traits = METRICS.get(menu.metric).traits
    pooled = traits.get("pools") or traits.get("target") or "relative_error" in menu.recipe.metric_options
    return not pooled and not is_finer(menu.granularity)


def known(question: Mapping[str, Any], formats: Sequence[str], context: Context) -> list[str]:
    """The formats whose columns are kept for this question (the key of a table, without its formats)."""
    return [name for name in formats if context.blobs.path("cells", _digest(question, name)).exists()]


def keep(question: Mapping[str, Any], table: SensitivityTable, context: Context) -> None:
    for name in table.formats:
        column = _column(table, name)
        context.blobs.memo("cells", _digest(question, name), column.save)


def assemble(question: Mapping[str, Any], formats: Sequence[str], context: Context) -> SensitivityTable:
    """The table of these formats from their columns, all of which are kept."""
    return join([load_table(context.blobs.path("cells", _digest(question, name))) for name in formats])


def join(tables: Sequence[SensitivityTable]) -> SensitivityTable:
    """Tables of different formats side by side: losses, doubts, and the response fitted on the anchors of all."""
    first = tables[0]
    told = [table.provenance for table in tables]
    shared = set.intersection(*(set(table.extras) for table in tables))
    responses = [Response.from_json(one.get("response")) for one in told]
    provenance = {
        **first.provenance,
        "warnings": list(dict.fromkeys(warning for one in told for warning in one["warnings"])),
        "unmeasured": list(dict.fromkeys(name for one in told for name in one["unmeasured"])),
        "response": None if told[0].get("response") is None else joined(responses).to_json(),
    }
    found = replace(
        first,
        formats=tuple(name for table in tables for name in table.formats),
        loss=np.concatenate([table.loss for table in tables], axis=1),
        stderr=np.concatenate([table.stderr for table in tables], axis=1),
        provenance=provenance,
        extras={name: np.concatenate([t.extras[name] for t in tables], axis=-1) for name in sorted(shared)},
    )
    return pooled(found)


def _column(table: SensitivityTable, name: str) -> SensitivityTable:
    """One column; the response is of the run that it came from."""
    return table.restrict((name,))


def _digest(question: Mapping[str, Any], name: str) -> str:
    return digest_json({"question": dict(question), "format": name})
