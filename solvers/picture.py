"""The frontier as a picture: what `bitwright plot`, `bitwright frontier --out` and Frontier.plot draw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.plot import frontier_svg, write_picture
from bitwright.plot.frontier import Mark

if TYPE_CHECKING:
    from solvers.frontier import Frontier

#: Points of the curve: more than the picture has pixels.
POINTS = 1000


def frontier_picture(
    found: Frontier,
    title: str,
    *,
    weights: int | None = None,
    loss_unit: str | None = None,
    plan: Mark | None = None,
) -> str:
    """SVG text. weights: of the planned units, where the limit is their bytes; plan: a point to mark."""
    return frontier_svg(
        title,
        [(float(found.cost[i]), float(found.loss[i])) for i in found.thin(POINTS).tolist()],
        [Mark(mark.name, float(mark.cost), mark.loss) for mark in found.uniform],
        (float(found.cost[found.knee]), float(found.loss[found.knee])),
        limit=found.limit,
        weights=weights,
        loss_unit=loss_unit,
        plan=plan,
    )


def draw_frontier(found: Frontier, path: str | Path) -> None:
    """The same written to FILE.svg or FILE.png, whole or not at all. Raises InvalidInput, Unsupported."""
    write_picture(frontier_picture(found, f"loss for every value of {found.limit}"), Path(path))
