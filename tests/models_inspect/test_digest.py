"""Digests: the same content gives the same digest wherever it lies; any change of content changes it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from bitwright.models import digest as digests
from bitwright.models import open_model
from tests.models_inspect.checkpoints import LAYOUTS, write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests"


def settle(folder: Path) -> None:
    """Make the files old enough for their digests to be remembered."""
    for file in folder.iterdir():
        os.utime(file, (time.time() - 60,) * 2)


def test_content_decides_not_the_place(tmp_path: Path) -> None:
    one, two = (open_model(str(write(tmp_path / name, LAYOUTS["vit"]))) for name in ("a", "b"))
    assert one.digest == two.digest
    assert one.digest.startswith("sha256:")
    other = open_model(str(write(tmp_path / "c", LAYOUTS["vit"], seed=1)))
    assert other.digest != one.digest


def test_config_counts(tmp_path: Path) -> None:
    before = open_model(str(write(tmp_path, LAYOUTS["vit"]))).digest
    (tmp_path / "config.json").write_text(json.dumps({**LAYOUTS["vit"][0], "hidden_act": "relu"}))
    assert open_model(str(tmp_path)).digest != before


def test_names_of_shards_do_not_count(tmp_path: Path) -> None:
    one = open_model(str(write(tmp_path, LAYOUTS["vit"], shards=2))).digest
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-0000", "part-0000"))
    for file in list(tmp_path.glob("model-*.safetensors")):
        file.rename(tmp_path / file.name.replace("model-", "part-"))
    assert open_model(str(tmp_path)).digest == one


def test_remembered_until_the_file_changes(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "m", LAYOUTS["vit"])
    settle(folder)
    first = open_model(str(folder)).digest
    notes = list(cache.iterdir())
    assert len(notes) == 2
    for note in notes:  # proof that the memory is read: plant a digest in it
        note.write_text(json.dumps({**json.loads(note.read_text()), "digest": "sha256:planted"}))
    assert open_model(str(folder)).digest != first
    write(folder, LAYOUTS["vit"], seed=2)
    settle(folder)
    changed = open_model(str(folder)).digest
    assert changed == open_model(str(write(tmp_path / "n", LAYOUTS["vit"], seed=2))).digest


def test_files_changed_just_now_are_not_remembered(tmp_path: Path, cache: Path) -> None:
    assert open_model(str(write(tmp_path / "m", LAYOUTS["vit"]))).digest
    assert not cache.exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"key": 1, "digest": 2}'])
def test_broken_notes_are_ignored(text: str, tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "m", LAYOUTS["vit"])
    settle(folder)
    first = open_model(str(folder)).digest
    for note in cache.iterdir():
        note.write_text(text)
    assert open_model(str(folder)).digest == first


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BITWRIGHT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    folder = write(tmp_path / "m", LAYOUTS["vit"])
    settle(folder)
    assert open_model(str(folder)).digest


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BITWRIGHT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert digests.cache_folder() == tmp_path / "bitwright"


def test_tokenizer_has_a_digest_of_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path, LAYOUTS["llama-gqa"])
    before = open_model(str(folder))
    first = (before.digest, before.tokenizer_digest)
    (folder / "tokenizer.json").write_text("{}")
    after = open_model(str(folder))
    assert after.digest == first[0]
    assert after.tokenizer_digest != first[1]
