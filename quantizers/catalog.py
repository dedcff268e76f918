"""Quantizers by name."""

from __future__ import annotations

from bitwright.core.catalog import Catalog, Entry

QUANTIZERS = Catalog(
    "quantizer",
    (
        Entry(
            "rtn",
            "quantizers.rtn:QUANTIZER",
            "round to nearest, scales from each group's range",
            traits={"data": "none"},
        ),
        Entry(
            "clip",
            "quantizers.clip:QUANTIZER",
            "round to nearest with a gain-corrected search of the range",
            traits={"data": "optional"},
        ),
        Entry(
            "gptq",
            "quantizers.gptq:QUANTIZER",
            "GPTQ: later inputs make up for the rounding of earlier ones",
            traits={"data": "hessian"},
        ),
        Entry(
            "sqc",
            "quantizers.sqc:QUANTIZER",
            "GPTQ with SliM-LLM's ranges: what an error of a salient weight counts decides them",
            traits={"data": "hessian"},
        ),
        Entry(
            "gptq-gain",
            "quantizers.compensation:GPTQ_GAIN",
            "gptq, then one factor on the scales of every row that undoes its shrinkage",
            traits={"data": "hessian"},
        ),
        Entry(
            "erq",
            "quantizers.compensation:ERQ",
            "rtn, then ERQ's ridge correction in rows where it helps on held-out tokens",
            traits={"data": "hessian", "held_out": True},
        ),
        Entry(
            "rtn-bias",
            "quantizers.compensation:RTN_BIAS",
            "rtn, then biases take over the mean output error where that helps on held-out tokens",
            traits={"data": "hessian", "held_out": True},
        ),
        Entry(
            "gptq-bias",
            "quantizers.compensation:GPTQ_BIAS",
            "gptq, then biases take over the mean output error where that helps on held-out tokens",
            traits={"data": "hessian", "held_out": True},
        ),
    ),
)
