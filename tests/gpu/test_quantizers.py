"""GPTQ and the search of scales on a GPU: what quantizers.arithmetic promises of another order of adding."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.errors import OutOfResources
from bitwright.core.formats import parse_format
from quantizers.arithmetic import arithmetic
from quantizers.catalog import QUANTIZERS
from tests.gpu.places import CPU, GPU, nearly_full, on
from tests.quantizers.test_gptq import error, moments
from tests.quantizers.test_on_device import CASES, made

SIZE = 1024


def test_every_case_has_the_cpus_codes_and_error_and_the_same_bytes_twice() -> None:
    with on(CPU):
        here = made()
    with on(GPU):
        there, again = made(), made()
    assert there == again
    for case, (data, found), (there_data, far) in zip(CASES, here, there, strict=True):
        same = np.frombuffer(data, np.uint8) == np.frombuffer(there_data, np.uint8)
        searched = case[0] in ("clip", "sqc") or case[2].get("scales") == "clip"
        assert same.mean() >= (0.99 if searched else 1), (case, float(same.mean()))
        assert abs(far - found) <= (1e-3 if searched else 1e-6) * found, (case, far / found - 1)


LAYERS: list[tuple[str, str, dict[str, object]]] = [
    ("gptq", "int4-g128", {}), ("gptq", "nf4", {}), ("gptq", "int2-g64", {"scales": "clip"}),
    ("clip", "int3-g64", {"error": "hessian"}), ("clip", "int3-g64", {"error": "plain"}),
]  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_whole_layer_is_the_cpus_but_for_ties(layer: tuple[str, str, dict[str, object]], precision: str) -> None:
    """Weights of a checkpoint in bfloat16 lie on few values: there ties are common."""
    quantizer, name, told = layer
    weight = np.random.default_rng(3).standard_t(4, (SIZE, SIZE)).astype(np.float32)
    if precision == "bfloat16":
        weight = (weight.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    hessian = moments(SIZE, 2 * SIZE, seed=1)
    found = []
    for place in (CPU, GPU, GPU):
        with on(place):
            maker = QUANTIZERS.load(quantizer)
            found.append(maker.quantize(weight, parse_format(name), name="w", hessian=hessian, **told))
    assert all(np.array_equal(a, b) for a, b in zip(found[1].arrays(), found[2].arrays(), strict=True))
    here, there = (error(weight, value.dequantize(), hessian) for value in found[:2])
    first, second = (np.concatenate([part.ravel().view(np.uint8) for part in value.arrays()]) for value in found[:2])
    same, away = float(np.mean(first == second)), abs(there / here - 1)
    assert away <= (1e-3 if told else 1e-6), (away, same)
    assert same >= (0.99 if told else 0.9999), (away, same)


@pytest.mark.parametrize(("quantizer", "name"), [("gptq", "int4-g64"), ("gptq", "q4_0"), ("clip", "int4-g64")])
def test_a_full_gpu_is_a_typed_error(quantizer: str, name: str) -> None:
    weight = np.random.default_rng(0).standard_normal((4096, 2048)).astype(np.float32)
    with on(GPU):
        arithmetic()
        with nearly_full(40 << 20), pytest.raises(OutOfResources, match="the memory of cuda") as told:
            QUANTIZERS.load(quantizer).quantize(weight, parse_format(name), name="w", hessian=np.eye(2048))
    assert "BITWRIGHT_DEVICE=cpu" in str(told.value.hint)
