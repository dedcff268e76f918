"""What GPTQ's calibration is worth on the inputs that quantized layers really get: the table of docs/benchmarks.md.

Usage: python -m benchmarks.prefix MODEL --calibration FILE --test FILE [--formats int2-g64,...] [--quantizers gptq,...]
           [--prefix none,block,layer] [--seeds 1]

KL on the test text with every unit in one format. `none`: moments of the unquantized model's inputs, as in plans.
`block`: a block's moments are gathered with all earlier blocks quantized (GPTQ's own way). `layer`: and with the
earlier layers of the block quantized too. A seed draws the calibration. The quantizer `gain+gate` is gptq-gain behind
the gate of `erq`: an eighth of the tokens judges the gain of every row, the rest make it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import Format, parse_format
from bitwright.models import inspect, open_model
from quantizers.base import Quantizer, dequantize
from quantizers.catalog import QUANTIZERS
from quantizers.compensation import Compensated
from quantizers.gain import Gain
from quantizers.gptq import Gptq
from quantizers.mixed import quantize
from sensitivity import calibration as calibrations
from sensitivity.base import silent
from sensitivity.data import Data
from sensitivity.deltas import unit_weight
from sensitivity.evaluate import measure_weights
from sensitivity.input_moments import gather
from sensitivity.runner import Runner, load_runner
from sensitivity.share import blocks_of
from worker.steps.quantizing import with_held_out

Weights = dict[str, NDArray[np.float32]]
GATED = Compensated("gain+gate", Gptq(), Gain(), judged=True)


def steps(runner: Runner, data: Data, prefix: str) -> Iterator[tuple[int, ...]]:
    """Unit numbers that are quantized together, in the order of the model."""
    inventory = runner.inventory
    if prefix == "none":
        yield tuple(range(len(inventory.units)))
        return
    for block in blocks_of(inventory):
        if prefix == "block":
            yield tuple(block)
            continue
        leaders, _, _ = gather(runner, data.take(np.arange(1)), block, silent)
        together: dict[str, list[int]] = {}
        for number in block:
            unit = inventory.units[number]
            key = leaders.get(unit.name, unit.name)
            if unit.expert is not None:  # all experts' first layers, then all last ones
                key = "out" if unit.module.rsplit(".", 1)[-1] in ("w2", "down_proj") else "in"
            together.setdefault(key, []).append(number)
        yield from map(tuple, together.values())


def made(runner: Runner, data: Data, quantizer: Quantizer, formats: Mapping[str, Format], prefix: str) -> Weights:
    """Every unit's weights, calibrated step by step."""
    parts, weights = {"hessian": data} if quantizer is not GATED else with_held_out(data), Weights()
    for group in steps(runner, data, prefix):
        with runner.replaced(weights):
            found = {key: gather(runner, part, group, silent) for key, part in parts.items()}
        for number in group:
            unit = runner.inventory.units[number]
            none = np.zeros((unit.shape[1],) * 2, np.float32)
            context = {
                key: moments.get(leaders.get(unit.name, ""), none) for key, (leaders, moments, _) in found.items()
            }
            weight = unit_weight(runner.source, unit)
            value = quantize(quantizer, weight, formats[unit.name], name=unit.name, **context)
            weights[unit.name] = dequantize(value)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--formats", default="int2-g64,int3-g64,int4-g64")
    parser.add_argument("--quantizers", default="gptq,gptq-gain")
    parser.add_argument("--prefix", default="none,block,layer")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--test-tokens", type=int, default=8192)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    source = open_model(args.model)
    inventory = inspect(source)
    runner, test = (
        load_runner(source, inventory),
        calibrations.load_data(Path(args.test), source, inventory, tokens_wanted=args.test_tokens),
    )
    found: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        data = calibrations.load(
            Path(args.calibration), source, inventory, scoring_tokens=args.tokens, confirming_tokens=256, seed=seed
        ).scoring
        for quantizer in args.quantizers.split(","):
            for format in args.formats.split(","):
                formats = dict.fromkeys((unit.name for unit in inventory.units), parse_format(format))
                base: float | None = None
                for prefix in args.prefix.split(","):
                    weights = made(
                        runner, data, GATED if quantizer == GATED.name else QUANTIZERS.load(quantizer), formats, prefix
                    )
                    kl = measure_weights(runner, {"made": lambda w=weights: w}, test)["made"].kl
                    base = kl if base is None else base
                    found.append({"seed": seed, "quantizer": quantizer, "format": format, "prefix": prefix, "kl": kl})
                    print(f"{seed} {quantizer:10}{format:10}{prefix:7}{kl:.5f}  ratio {kl / base:.3f}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
