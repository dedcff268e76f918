"""Every hostile folder ends in a typed error that says what was expected, soon and in little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from bitwright.core.errors import InvalidModel, UnsafeFormat
from bitwright.models import inspect, open_model
from tests.attacks.hostile import ATTACKS

#: Four times the header cap; a reader that believed the files would need gigabytes.
MEMORY = 128 << 20


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_folder_is_refused(name: str, tmp_path: Path) -> None:
    ATTACKS[name](tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidModel) as caught:
            inspect(open_model(str(tmp_path)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    assert caught.value.expected
    assert caught.value.got
    assert str(caught.value).replace("\n", "").isprintable()


def test_pickles_are_refused_by_kind_and_nothing_runs(tmp_path: Path) -> None:
    ATTACKS["pickled_weights"](tmp_path)
    with pytest.raises(UnsafeFormat, match="can run any program") as caught:
        open_model(str(tmp_path))
    assert "save_pretrained" in str(caught.value.hint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_a_pickled_file_given_by_name_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeFormat):
        open_model(str(file))
