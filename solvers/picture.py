"""The frontier as a picture (matplotlib, imported only here)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.core.canonical import atomic_write
from bitwright.core.errors import Unsupported

if TYPE_CHECKING:
    from solvers.frontier import Frontier


def draw_frontier(found: Frontier, path: str | Path) -> None:
    """Cost against loss (logarithmic where all losses are positive), uniform plans as points, the knee marked."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Unsupported("a picture needs matplotlib", got="not installed", hint="pip install matplotlib") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    keep = found.thin(4000)
    axes.plot(found.cost[keep], found.loss[keep], lw=1.5, label="best for every budget")
    for u in found.uniform:
        axes.plot([u.cost], [u.loss], "o", color="tab:orange", ms=5)
        axes.annotate(u.name, (u.cost, u.loss), textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.plot([found.cost[found.knee]], [found.loss[found.knee]], "D", color="tab:green", ms=6, label="knee")
    if found.loss[keep].min() > 0:
        axes.set_yscale("log")
    axes.set_xlabel(found.limit)
    axes.set_ylabel("predicted loss")
    axes.legend(frameon=False)
    with atomic_write(Path(path)) as file:
        canvas.print_figure(file, format=Path(path).suffix.lstrip(".") or "png", dpi=130)
