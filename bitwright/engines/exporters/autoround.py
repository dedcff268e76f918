"""AutoRound: `layer_config`, exact names (research/04 section 5.4)."""

from __future__ import annotations

import json

from bitwright.core.formats import IntFormat
from bitwright.core.plan import Plan, PlanUnit
from bitwright.engines.exporters.common import group_size, module_names, ragged, require, split

TARGET = "AutoRound"
WIDTHS = (2, 3, 4, 8)


def export(plan: Plan) -> str:
    """JSON text of the `layer_config` dictionary. Raises Unsupported for widths other than 2, 3, 4 and 8."""
    ints, kept = split(plan.units)
    require(ints, _why_not, TARGET, "2, 3, 4 or 8 bits, groups that divide the inputs")
    config: dict[str, dict[str, object]] = {}
    for unit, format in ints:
        for name in module_names(unit):
            config[name] = {
                "bits": format.width,
                "group_size": group_size(unit, format),
                "sym": format.symmetric,
                "data_type": "int",
            }
    config |= {name: {"bits": 16} for unit in kept for name in module_names(unit)}
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _why_not(unit: PlanUnit, format: IntFormat) -> str | None:
    return ragged(unit, format) if format.width in WIDTHS else "AutoRound writes 2, 3, 4 and 8 bits"
