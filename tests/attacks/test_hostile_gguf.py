"""Hostile GGUF files end in a typed error that says what was expected, soon and in little memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.models import open_model
from bitwright.models.gguf_header import read_gguf

MEMORY = 128 << 20
HEAD = b"GGUF" + struct.pack("<I", 3)


def text(value: str | bytes, *, length: int | None = None) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data) if length is None else length) + data


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str = "a", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(tensors: int, keys: int, body: bytes, data: bytes = bytes(4096), head: bytes = HEAD) -> bytes:
    whole = head + struct.pack("<QQ", tensors, keys) + body
    return whole + bytes(-len(whole) % 32) + data


ATTACKS: dict[str, bytes] = {
    "empty": b"",
    "only the magic": b"GGUF",
    "another magic": file(0, 0, b"", head=b"GGML" + struct.pack("<I", 3)),
    "version 1": file(0, 0, b"", head=b"GGUF" + struct.pack("<I", 1)),
    "big-endian version": file(0, 0, b"", head=b"GGUF" + struct.pack(">I", 3)),
    "2^64 tensors": file(2**64 - 1, 0, b""),
    "2^64 keys": file(0, 2**64 - 1, b""),
    "a million tensors that are not there": file(999_999, 0, b""),
    "a text of 2^63 bytes": file(0, 1, text(b"x", length=2**63)),
    "a text past the end": file(0, 1, text(b"x", length=100_000)),
    "a text that is no UTF-8": file(0, 1, text(b"\xff\xfe")),
    "a key twice": file(0, 2, key("k", 4, b"\1\0\0\0") * 2),
    "a type that is none": file(0, 1, key("k", 13, b"")),
    "an array of 2^60 numbers": file(0, 1, key("k", 9, struct.pack("<IQ", 4, 2**60))),
    "an array of arrays of arrays": file(
        0, 1, key("k", 9, struct.pack("<IQIQIQ", 9, 1, 9, 1, 9, 1) + struct.pack("<IQ", 4, 0))
    ),
    "truth that is neither": file(0, 1, key("k", 7, b"\2")),
    "an alignment of 0": file(0, 1, key("general.alignment", 4, b"\0\0\0\0")),
    "an alignment of 3": file(0, 1, key("general.alignment", 4, b"\3\0\0\0")),
    "an alignment in words": file(0, 1, key("general.alignment", 8, text("32"))),
    "no dimension": file(1, 0, tensor(shape=())),
    "nine dimensions": file(1, 0, tensor(shape=(1,) * 9)),
    "a dimension of 0": file(1, 0, tensor(shape=(0, 32))),
    "dimensions that wrap": file(1, 0, tensor(shape=(2**32, 2**32, 2**32))),
    "a tensor past the end": file(1, 0, tensor(shape=(1 << 20,))),
    "an offset of 2^63": file(1, 0, tensor(offset=2**63)),
    "an offset that is not aligned": file(1, 0, tensor(offset=5)),
    "two tensors in one place": file(2, 0, tensor("a") + tensor("b")),
    "a tensor twice": file(2, 0, tensor("a") + tensor("a", offset=128)),
    "an unknown ggml type": file(1, 0, tensor(kind=99)),
    "rows that are no whole blocks": file(1, 0, tensor(shape=(33,), kind=2)),
    "a name with control characters": file(1, 0, tensor("a\x1b[31m")),
    "an empty name": file(1, 0, tensor("")),
    "data missing": file(1, 0, tensor(shape=(4096,)), data=b""),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_gguf_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(ATTACKS[name])
    tracemalloc.start()
    try:
        with pytest.raises(InvalidModel) as caught:
            open_model(str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    assert caught.value.expected
    assert caught.value.got
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"llama.attention.head_count", b"llama.attention.hexd_count", 1),
        lambda data: data.replace(b"token_embd.weight", b"token_embX.weight"),
        lambda data: data.replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight"),
        lambda data: data[:-200],
    ],
)
def test_a_file_that_lacks_a_part_is_refused(
    change: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.models_inspect.test_gguf_models import MODELS, gguf_of

    monkeypatch.setenv("BITWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    _, _, path = gguf_of(MODELS / "llama-stdlib", tmp_path / "out", "q8_0")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises((InvalidModel, Unsupported)):
        open_model(str(path))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), tensors=st.integers(0, 3), keys=st.integers(0, 3))
def test_any_bytes_are_read_or_refused(data: bytes, tensors: int, keys: int, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(file(tensors, keys, data))
    refused: InvalidModel | None = None
    try:
        read_gguf(path)
    except InvalidModel as error:
        refused = error
    assert refused is None or refused.expected
