"""Reading weights: every dtype against torch as oracle; short reads and bad values are typed errors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bitwright.core.errors import InvalidModel
from bitwright.models import check_finite, open_model
from bitwright.models.weights import to_float32
from tests.models_inspect.checkpoints import LAYOUTS, safetensors, write

TORCH_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
}  # fmt: skip


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_every_dtype_is_read_as_torch_reads_it(dtype: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    data = bytes(range(256)) * 8 if dtype.startswith("F8") else np.random.default_rng(1).bytes(2048)
    stored = torch.frombuffer(bytearray(data), dtype=getattr(torch, TORCH_DTYPES[dtype])).reshape(4, -1)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(
        safetensors({"pad": ("U8", (3,), b"123"), "w": (dtype, tuple(stored.shape), data)})
    )
    ours = open_model(str(tmp_path)).read_float32("w")
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, stored.to(torch.float32).numpy())


def test_one_matrix_of_a_stack(tmp_path: Path) -> None:
    source = open_model(str(write(tmp_path, LAYOUTS["mixtral-stacked"])))
    name = "model.layers.1.mlp.experts.down_proj"
    whole = source.read_float32(name)
    for index in range(len(whole)):
        np.testing.assert_array_equal(source.read_float32(name, index), whole[index])
    with pytest.raises(IndexError, match="no matrix 4"):
        source.read(name, 4)


def test_raw_bfloat16_is_its_bits(tmp_path: Path) -> None:
    source = open_model(str(write(tmp_path, LAYOUTS["llama-gqa"])))
    raw = source.read("lm_head.weight")
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal(to_float32(raw, "BF16"), source.read_float32("lm_head.weight"))


def test_unknown_tensor(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="no such tensor"):
        open_model(str(write(tmp_path, LAYOUTS["vit"]))).read("nothing")


def test_file_cut_after_opening(tmp_path: Path) -> None:
    source = open_model(str(write(tmp_path, LAYOUTS["vit"])))
    os.truncate(tmp_path / "model.safetensors", source.file_bytes - 8)
    with pytest.raises(InvalidModel, match="changed while it was read"):
        source.read("classifier.bias")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_located(bad: float) -> None:
    array = np.zeros((3, 4), np.float32)
    check_finite("fine", array)
    array[1, 2] = bad
    with pytest.raises(InvalidModel, match=r"the first at \[1, 2\]") as caught:
        check_finite("broken.weight", array)
    assert caught.value.extra["tensor"] == "broken.weight"


def test_opposite_infinities_do_not_cancel() -> None:
    with pytest.raises(InvalidModel, match="2 NaN or infinite"):
        check_finite("w", np.array([np.inf, -np.inf], np.float32))


def test_large_finite_values_are_fine() -> None:
    check_finite("w", np.full(1000, np.finfo(np.float64).max))
    check_finite("i", np.arange(3))


def test_rows_of_a_matrix_are_those_of_the_whole(tmp_path: Path) -> None:
    source = open_model(str(write(tmp_path, LAYOUTS["llama-gqa"])))
    name = next(name for name, info in source.tensors.items() if len(info.shape) == 2)
    whole = source.read(name)
    for rows in ((0, len(whole)), (1, 3), (2, 2)):
        assert np.array_equal(source.read(name, rows=rows), whole[slice(*rows)])
    for bad in ((-1, 2), (3, 2), (0, len(whole) + 1)):
        with pytest.raises(IndexError, match="has no rows"):
            source.read(name, rows=bad)
