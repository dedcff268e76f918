"""Several formats in one matrix: every quantizer, every cut, written and read back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import Format, MixedFormat, parse_format
from bitwright.core.mixed_format import mixed
from quantizers.base import Mixed
from quantizers.catalog import QUANTIZERS
from quantizers.containers.catalog import CONTAINERS
from quantizers.containers.packed_reader import read as plain_read
from quantizers.mixed import InCut, quantize, uniform
from tests.containers.toy import toy
from tests.quantizers.test_gptq import error, moments
from tests.strategies import MixedCase, mixed_cases

MENU = tuple(parse_format(name) for name in ("int2-g8", "int3-g8", "int5-sym-g8"))
CUTS = ("row", "row:4", "column", "column:8", "column:16", "group")
WEIGHT = np.random.default_rng(0).standard_normal((12, 32)).astype(np.float32)
HESSIAN = moments(32)


def some(granularity: str, weight: np.ndarray = WEIGHT) -> MixedFormat:
    parts = len(uniform(granularity, MENU[0], (weight.shape[0], weight.shape[1])).choice)
    return mixed(granularity, MENU, np.random.default_rng(1).integers(0, len(MENU), parts))


def made(quantizer: str, format: Format, weight: np.ndarray = WEIGHT) -> np.ndarray:
    value = quantize(QUANTIZERS.load(quantizer), weight, format, name="w", hessian=HESSIAN)
    assert value.format == format
    return value.dequantize()


@pytest.mark.parametrize("quantizer", QUANTIZERS.names())
@pytest.mark.parametrize("granularity", ["row", "row:4"])
def test_a_row_is_what_it_is_in_a_matrix_of_its_own_format(quantizer: str, granularity: str) -> None:
    format = some(granularity)
    dense, choice = made(quantizer, format), format.line_choice((12, 32))
    for number, member in enumerate(format.members):
        assert np.array_equal(dense[choice == number], made(quantizer, member)[choice == number])


@pytest.mark.parametrize("quantizer", QUANTIZERS.names())
@pytest.mark.parametrize("granularity", ["column:8", "group"])
def test_parts_in_one_format_are_that_format(quantizer: str, granularity: str) -> None:
    for member in MENU[:2]:
        assert np.array_equal(made(quantizer, uniform(granularity, member, (12, 32))), made(quantizer, member))


@pytest.mark.parametrize("quantizer", ["rtn", "clip"])
@pytest.mark.parametrize("granularity", ["column:8", "column:16", "group"])
def test_a_part_is_what_it_is_in_its_own_format(quantizer: str, granularity: str) -> None:
    format = some(granularity)
    cut, choice = format.cut((12, 32)), format.line_choice((12, 32))
    lines = cut.to_lines(made(quantizer, format), (12, 32))
    for number, member in enumerate(format.members):
        same = cut.to_lines(made(quantizer, member), (12, 32))
        assert np.array_equal(lines[choice == number], same[choice == number])


@pytest.mark.parametrize("granularity", CUTS)
def test_gptq_lowers_the_output_error_of_every_cut(granularity: str) -> None:
    weight = np.random.default_rng(2).standard_normal((48, 32)).astype(np.float32)
    format = some(granularity, weight)
    gptq, nearest = (error(weight, made(name, format, weight), HESSIAN) for name in ("gptq", "rtn"))
    assert gptq < 0.8 * nearest


def test_stored_bf16_weights_are_widened_first() -> None:
    bits = (WEIGHT.view(np.uint32) >> 16).astype(np.uint16)
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    for granularity in CUTS:
        format = some(granularity)
        stored = quantize(QUANTIZERS.load("rtn"), bits, format, name="w").dequantize()
        assert np.array_equal(stored, made("rtn", format, wide))


def test_columns_are_rows_of_the_transposed_matrix() -> None:
    format = parse_format("int3-g8")
    turned = InCut(QUANTIZERS.load("rtn"), "column").quantize(WEIGHT, format)
    assert np.array_equal(turned.dequantize(), made("rtn", format, np.ascontiguousarray(WEIGHT.T)).T)


@pytest.mark.parametrize("quantizer", QUANTIZERS.names())
@pytest.mark.parametrize("granularity", ["row", "column", "group"])
def test_weights_that_are_no_numbers_are_refused(quantizer: str, granularity: str) -> None:
    bad = WEIGHT.copy()
    bad[3, 5] = np.nan
    with pytest.raises(InvalidModel):
        made(quantizer, some(granularity), bad)


@pytest.mark.parametrize("shape", [(0, 8), (4, 0)])
def test_an_empty_matrix_is_cut_by_row_or_refused(shape: tuple[int, int]) -> None:
    """numpy's own errors reached the caller, and of GPTQ one about a Hessian of no inputs."""
    for quantizer in QUANTIZERS.names():
        format = uniform("row", MENU[0], shape)
        context = {name: np.eye(shape[1]) for name in ("hessian", "held_out")}
        value = quantize(QUANTIZERS.load(quantizer), np.zeros(shape, np.float32), format, name="w", **context)
        assert value.dequantize().shape == shape
    for granularity in ("column", "column:8", "group"):
        with pytest.raises(Unsupported, match="empty matrix"):
            uniform(granularity, MENU[0], shape)


def test_zero_weights_stay_zero() -> None:
    for granularity in CUTS:
        assert not made("gptq", some(granularity), np.zeros_like(WEIGHT)).any()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=mixed_cases(), shard=st.sampled_from([10**9, 200]))
def test_written_bytes_are_predicted_and_the_plain_reader_agrees(case: MixedCase, shard: int) -> None:
    granularity, shape, menu, choice = case
    format, container = mixed(granularity, menu, np.array(choice)), CONTAINERS.load("packed")
    with tempfile.TemporaryDirectory() as folder:
        source, inventory = toy(Path(folder) / "model", {"a.weight": shape, "b.weight": shape})
        formats = [format, menu[0]]
        report = container.write(source, inventory, formats, Path(folder) / "out", max_shard_bytes=shard)
        assert report.file_bytes == container.predict(inventory, formats, max_shard_bytes=shard).file_bytes
        any_choice = [MixedFormat(granularity, menu), *menu]
        assert report.overhead_bytes <= container.max_overhead(inventory, any_choice, max_shard_bytes=shard)
        checkpoint = container.read(report.path)
        assert checkpoint.formats()["a.weight"] == format
        value = checkpoint.quantized("a.weight")
        assert isinstance(value, Mixed)
        plain = plain_read(report.path)
        assert np.array_equal(plain["a.weight"], value.dequantize())
        assert set(plain) == {"a.weight", "b.weight"} | {tensor.name for tensor in inventory.rest}


def test_damaged_parts_are_a_typed_error(tmp_path: Path) -> None:
    container = CONTAINERS.load("packed")
    source, inventory = toy(tmp_path / "model", {"a.weight": (12, 32)})
    container.write(source, inventory, [some("row")], tmp_path / "out")
    manifest = tmp_path / "out" / "bitwright.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace("row(int2-g8,int3-g8,", "row(int2-g8,"))
    with pytest.raises(InvalidModel, match="parts cannot be read"):
        container.read(tmp_path / "out")
    manifest.write_text(whole.replace("row(", "row:12("))
    with pytest.raises(InvalidModel):
        container.read(tmp_path / "out").quantized("a.weight")
