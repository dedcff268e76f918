"""Pictures of plans and frontiers as SVG text, by the standard library alone; PNG where `resvg-py` is installed."""

from bitwright.plot.frontier import frontier_svg
from bitwright.plot.heatmap import heatmap_svg
from bitwright.plot.png import to_png, write_picture

__all__ = ["frontier_svg", "heatmap_svg", "to_png", "write_picture"]
