"""What a request's budget leaves to the units that are planned."""

from __future__ import annotations

from bitwright.core.budget import parse_budget
from bitwright.core.errors import Unsupported
from bitwright.core.formats import Format, MixedFormat, parse_format
from bitwright.core.mixed_format import is_finer
from bitwright.core.requests import PlanRequest
from quantizers.containers.catalog import CONTAINERS
from sensitivity.catalog import METRICS
from worker.steps.serving import Serving
from worker.steps.study import Opened

#: Whole-file budgets leave room for this container's metadata when the request names none.
DEFAULT_CONTAINER = "packed"


def bytes_limit(study: Opened[PlanRequest], found: Serving | None) -> int:
    """The limit on the units' bytes (and the KV cache's, for a device) that the budget leaves."""
    other = other_bytes(study) + (found.reserved_bytes if found else 0)
    return parse_budget(study.request.budget).unit_bytes(weights=study.inventory.weights, other_bytes=other)


def other_bytes(study: Opened[PlanRequest]) -> int:
    """What a whole-file budget pays for besides the units: the unquantized rest and, at most, the metadata."""
    if not parse_budget(study.request.budget).whole_file:
        return 0
    container = CONTAINERS.load(study.request.to or DEFAULT_CONTAINER)
    formats: list[Format] = [parse_format(name) for name in study.menu.formats]
    if is_finer(study.menu.granularity):
        formats = [MixedFormat(study.menu.granularity, tuple(formats))]
    overhead: int = container.max_overhead(study.inventory, formats, source=study.source)
    return study.inventory.rest_bytes + overhead


def target_bits(study: Opened[PlanRequest]) -> float | None:
    """Stored bits a weight that the budget leaves, for metrics that look at one target only.

    Raises Unsupported for budgets that something else takes an unknown part of.
    """
    if not METRICS.get(study.menu.metric).traits.get("target"):
        return None
    if parse_budget(study.request.budget).served is not None:
        raise Unsupported(
            f"the metric {study.menu.metric} looks at plans of one size, and a device shares its memory with a cache",
            expected="a budget of weights, such as 3bpw or 120MB", got=study.request.budget,
        )  # fmt: skip
    return 8 * bytes_limit(study, None) / study.inventory.weights
