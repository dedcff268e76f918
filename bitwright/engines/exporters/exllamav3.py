"""exllamav3: YAML for `recompile`, which stitches tensors from finished conversions (research/04 section 5.8)."""

from __future__ import annotations

import json
import re

from bitwright.core.errors import InvalidInput
from bitwright.core.plan import Plan, PlanUnit
from bitwright.engines.exporters.common import Report, module_names, one_format_each, refusal, split, to_stderr

TARGET = "exllamav3"


def export(
    plan: Plan, *, nearest: bool = False, model_dir: str = "quants/{bits}.0bpw", report: Report = to_stderr
) -> str:
    """YAML text: one source a width and one override a module.

    EXL3 stores trellis codes, so no integer format has an exact counterpart: refused, unless `nearest=True` takes each
    unit's width as EXL3's bits a weight; `report` then gets one line a format (default: printed on stderr).
    model_dir: where the finished conversions lie. Raises Unsupported for 16-bit units and experts that differ.
    """
    ints, kept = split(plan.units)
    if not nearest:
        lines = [f"{unit.name}: {unit.format}" for unit in plan.units]
        raise refusal(
            TARGET,
            lines,
            "EXL3's own trellis formats",
            "export with nearest=True: the width becomes EXL3's bits a weight",
        )
    if kept:
        raise refusal(TARGET, [f"{unit.name}: {unit.format}" for unit in kept], "1 to 8 bits a unit")
    if "{bits}" not in model_dir or not model_dir.isprintable():
        raise InvalidInput(
            "model_dir needs a place for the bits", expected="such as quants/{bits}.0bpw", got=repr(model_dir)[:80]
        )
    one_format_each(plan.units, _role, TARGET)
    formats = {unit.format: format for unit, format in ints}
    report([f"{name} -> EXL3 at {format.width} bits a weight" for name, format in sorted(formats.items())])
    widths = sorted({format.width for format in formats.values()})
    rows = [f"  - {{id: b{w}, model_dir: {json.dumps(model_dir.replace('{bits}', str(w)))}}}" for w in widths]
    overrides = [
        f"  - {{key: {json.dumps(name + '.*')}, source: b{format.width}}}"
        for unit, format in ints
        for name in module_names(unit)
    ]
    return "\n".join(["sources:", *rows, "overrides:", *overrides]) + "\n"


def _role(unit: PlanUnit) -> tuple[str]:
    """Block and role: the experts of a block must share bits a role."""
    return (re.sub(r"\.experts\.[0-9]+\.|\[[0-9]+\]$", ".experts.*.", unit.name),)
