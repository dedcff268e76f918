"""Whatever the bytes: a header that fits the file, or InvalidModel; and agreement with the safetensors library."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import InvalidModel
from bitwright.models.limits import Limits
from bitwright.models.safetensors_header import Header, read_header
from tests.models_inspect.checkpoints import decoder, fill, safetensors

PATH = Path("fuzzed.safetensors")
SMALL = Limits(header_bytes=4096, tensors=16)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
dtypes = st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "nothing"])
sizes = st.integers(0, 6) | st.sampled_from([-1, 2**31, 2**32, 2**63, 2**64])
entries = st.fixed_dictionaries(
    {"dtype": dtypes, "shape": st.lists(sizes, max_size=9), "data_offsets": st.lists(sizes, min_size=1, max_size=3)}
)
headers = st.dictionaries(st.text(min_size=1, max_size=12) | st.just("__metadata__"), entries | json_values, max_size=4)


def read(data: bytes, limits: Limits = SMALL) -> Header | None:
    try:
        return read_header(io.BytesIO(data), PATH, len(data), limits)
    except InvalidModel:
        return None


def check(header: Header | None, size: int) -> None:
    """The promise of an accepted header: tensors tile the data exactly."""
    if header is None:
        return
    position = header.size
    for tensor in sorted(header.tensors, key=lambda t: (t.start, t.end)):
        assert tensor.start == position
        position = tensor.end
    assert position == size


def file(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    check(read(data), len(data))


@given(headers, st.binary(max_size=64))
def test_any_json(header: Any, data: bytes) -> None:
    content = file(header, data)
    check(read(content), len(content))


@given(st.data())
def test_any_damage_to_a_good_file(data: st.DataObject) -> None:
    rng = np.random.default_rng(0)
    good = safetensors({name: ("F32", (2, 3), fill("F32", (2, 3), rng)) for name in ("a", "b", "c")})
    position = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if kind == "cut":
        damaged = good[:position]
        assert read(damaged) is None
        return
    byte = bytes([data.draw(st.integers(0, 255))])
    damaged = good[:position] + byte + good[position + (kind == "flip") :]
    check(read(damaged), len(damaged))


@given(
    st.dictionaries(st.text("abcxyz._[]", min_size=1, max_size=10), st.lists(st.integers(0, 4), max_size=4), max_size=5)
)
def test_every_well_formed_file_is_read_as_the_library_reads_it(shapes: dict[str, list[int]]) -> None:
    library = pytest.importorskip("safetensors")
    content = safetensors({name: ("F16", tuple(shape), bytes(2 * math.prod(shape))) for name, shape in shapes.items()})
    header = read(content)
    assert header is not None
    theirs = dict(library.deserialize(content))
    ours = {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in header.tensors}
    assert ours == {name: (value["dtype"], value["shape"]) for name, value in theirs.items()}


def test_limits_hold_at_the_limit_and_break_one_beyond() -> None:
    def tensors(count: int) -> bytes:
        return safetensors({f"t{i}": ("F32", (1,), bytes(4)) for i in range(count)})

    assert read(tensors(16)) is not None
    assert read(tensors(17)) is None
    for length, fits in ((1024, True), (1025, False)):
        assert (read(safetensors({"n" * length: ("F32", (1,), bytes(4))})) is not None) is fits
    for rank, fits in ((8, True), (9, False)):
        assert (read(safetensors({"a": ("F32", (1,) * rank, bytes(4))})) is not None) is fits
    good = safetensors({"a": ("F32", (1,), bytes(4))})
    header = len(good) - 8 - 4
    assert read(good, Limits(header_bytes=header)) is not None
    assert read(good, Limits(header_bytes=header - 1)) is None


def test_a_header_of_many_tensors_is_read() -> None:
    _, shapes = decoder("llama", "LlamaForCausalLM", layers=40)
    rng = np.random.default_rng(0)
    content = safetensors({name: (dtype, shape, fill(dtype, shape, rng)) for name, (dtype, shape) in shapes.items()})
    header = read(content, Limits())
    assert header is not None
    assert len(header.tensors) == len(shapes)
