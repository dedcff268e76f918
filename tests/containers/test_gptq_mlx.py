"""GPTQ and MLX layouts: bits against independent packers, layouts by plan, and what the files cannot hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import parse_format
from gpu_kernels.reference import pack as reference_pack
from quantizers.containers.catalog import CONTAINERS
from quantizers.containers.gptq import GptqContainer
from tests.containers.toy import toy

SHAPES = {"model.layers.0.a_proj.weight": (64, 96), "model.layers.0.b_proj.weight": (32, 64)}


def make(tmp_path: Path, name: str, *formats: str) -> tuple[Any, Any, Any]:
    container = CONTAINERS.load(name)
    source, inventory = toy(tmp_path / "model", SHAPES)
    report = container.write(source, inventory, [parse_format(text) for text in formats], tmp_path / "out")
    return container.read(report.path), source, report


@pytest.mark.parametrize(
    ("formats", "layout"),
    [
        (("int4-sym-g32", "int8-sym-g32"), "gptq"),
        (("int3-sym-g32", "int2-sym-g32"), "gptq"),
        (("int4-g32", "int8-sym-g32"), "gptq_v2"),
        (("int5-sym-g32", "int3-sym-g32"), "gptq_p"),
        (("int6-g32", "int7-g32"), "gptq_p"),
    ],
)
def test_the_layout_follows_from_the_plan(formats: tuple[str, str], layout: str, tmp_path: Path) -> None:
    checkpoint, source, _ = make(tmp_path, "gptq", *formats)
    assert checkpoint.container.layout == layout
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config == json.loads((tmp_path / "out" / "quantize_config.json").read_text())
    assert config["checkpoint_format"] == layout
    for unit, text in zip(checkpoint.units, formats, strict=True):
        from quantizers.rtn import QUANTIZER

        expected = QUANTIZER.quantize(source.read_float32(unit.tensor), parse_format(text)).dequantize()
        assert np.array_equal(checkpoint.dequantized(unit.name), expected)


@pytest.mark.parametrize("width", [2, 3, 4, 8])
def test_gptq_words_are_the_stream_down_the_inputs(width: int) -> None:
    codes = np.random.default_rng(width).integers(0, 1 << width, (32, 96)).astype(np.uint8)
    assert np.array_equal(GptqContainer()._pack(codes, width), reference_pack(codes, width))


@pytest.mark.parametrize("width", range(2, 9))
def test_planes_bit_by_bit(width: int) -> None:
    """Each 32 codes: all low planes first, lowest bits first; an oracle that moves single bits."""
    planes = {2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 7: [4, 2, 1], 8: [8]}[width]
    codes = np.random.default_rng(width).integers(0, 1 << width, (4, 64)).astype(np.uint8)
    expected = []
    for row in codes:
        bits: list[int] = []
        for start in range(0, 64, 32):
            shift = 0
            for plane in planes:
                bits += [(int(code) >> shift >> b) & 1 for code in row[start : start + 32] for b in range(plane)]
                shift += plane
        expected.append([sum(bit << i for i, bit in enumerate(bits[w : w + 32])) for w in range(0, len(bits), 32)])
    planar = GptqContainer("gptq_p")
    packed = planar._pack(codes, width)
    assert packed.tolist() == expected
    assert np.array_equal(planar._unpack(packed, width, 64), codes)


def test_v1_stores_zero_points_less_one(tmp_path: Path) -> None:
    checkpoint, _, _ = make(tmp_path, "gptq", "int4-sym-g32", "int4-sym-g32")
    assert set(np.unique(checkpoint.raw("model.layers.0.a_proj.qzeros")).tolist()) == {0x77777777}


def test_a_zero_point_of_zero_survives_where_v1_would_wrap(tmp_path: Path) -> None:
    source, inventory = toy(tmp_path / "model", SHAPES)
    for array in source.arrays.values():
        array[...] = np.abs(array)
    formats = [parse_format("int4-g32")] * 2
    container = CONTAINERS.load("gptq")
    container.write(source, inventory, formats, tmp_path / "out")
    checkpoint = container.read(tmp_path / "out")
    assert checkpoint.container.layout == "gptq_v2"
    zeros = checkpoint.quantized("model.layers.0.a_proj.weight").zeros
    assert zeros is not None
    assert (zeros == 0).all()


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("gptq", "int1-sym-g32", "2 to 8 bits"),
        ("gptq", "q4_0", "2 to 8 bits"),
        ("gptq", "int4-sym-g64", "does not divide 96"),
        ("mlx", "int7-g32", "no 7 bits"),
        ("mlx", "int4-channel", "groups of 32, 64 and 128"),
        ("mlx", "q4_0", "integer and 16-bit"),
    ],
)
def test_what_they_cannot_hold(name: str, format: str, message: str, tmp_path: Path) -> None:
    _, inventory = toy(tmp_path / "model", SHAPES)
    with pytest.raises(Unsupported) as caught:
        CONTAINERS.load(name).predict(inventory, [parse_format(format)] * 2)
    assert message in str(caught.value)


def test_mlx_biases_are_exact_in_their_type(tmp_path: Path) -> None:
    checkpoint, _, report = make(tmp_path, "mlx", "int4-g32", "int6-sym-g32")
    assert checkpoint.tensors["model.layers.0.a_proj.biases"].dtype == "F32"
    assert checkpoint.tensors["model.layers.0.b_proj.biases"].dtype == "F16"
    config = json.loads((report.path / "config.json").read_text())
    assert config["quantization"] == config["quantization_config"]
    value = checkpoint.quantized("model.layers.0.a_proj.weight")
    scales, biases = (checkpoint.raw(f"model.layers.0.a_proj.{part}") for part in ("scales", "biases"))
    affine = np.repeat(scales, 32, axis=1) * value.codes.astype(np.float32) + np.repeat(biases, 32, axis=1)
    assert np.abs(affine - checkpoint.dequantized("model.layers.0.a_proj.weight")).max() < 1e-6


@pytest.mark.parametrize("name", ["gptq", "mlx"])
def test_a_config_that_says_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    make(tmp_path, name, "int4-sym-g32", "int8-sym-g32")
    file = tmp_path / "out" / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"]["bits"] = config.get("quantization", {})["bits"] = 3
    file.write_text(json.dumps(config))
    with pytest.raises(InvalidModel):
        CONTAINERS.load(name).read(tmp_path / "out")


@pytest.mark.parametrize("width", range(1, 9))
def test_the_old_compressed_tensors_layout_against_whole_codes_in_words(width: int) -> None:
    container = CONTAINERS.load("compressed-tensors-0.17")
    codes = np.random.default_rng(width).integers(0, 1 << width, (3, 77)).astype(np.uint8)
    each = 32 // width
    rows = [[*row.tolist(), *[0] * (-77 % each)] for row in codes]
    expected = [
        [sum(code << (width * i) for i, code in enumerate(row[w : w + each])) for w in range(0, len(row), each)]
        for row in rows
    ]
    packed = container.pack_codes(codes, width)
    assert packed.tolist() == expected
    assert np.array_equal(container.unpack_codes(packed, width, 77), codes)
    dense = CONTAINERS.load("compressed-tensors").pack_codes(codes, width)
    assert np.array_equal(packed, dense) == (width in (1, 2, 4, 8))


def test_mlx_lm_looks_for_rope_theta_at_the_top_of_the_config() -> None:
    """transformers 5 writes it under rope_parameters only; mlx-lm would take its own default without a word."""
    from quantizers.containers.mlx import _rope

    assert _rope({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}) == {"rope_theta": 1e4}
    scaled = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
    assert _rope({"rope_parameters": scaled})["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}
    assert _rope({"rope_theta": 1e4}) == {}
