"""Quantizers by name."""

from __future__ import annotations

from bitwright.core.catalog import Catalog, Entry

QUANTIZERS = Catalog(
    "quantizer",
    (
        Entry(
            "rtn",
            "quantizers.rtn:QUANTIZER",
            "round to nearest with scales from each group's range",
            traits={"data": "none"},
        ),
    ),
)
