"""Calibration data: what is loaded, how it is split, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import InvalidCalibration, OutOfResources
from bitwright.models import inspect, open_model
from sensitivity import calibration
from sensitivity.data import Data, split
from tests.sensitivity.tiny_models import Opened, image_data


@pytest.fixture(scope="module")
def llama(models_dir: Path) -> Opened:
    source = open_model(str(models_dir / "llama-stdlib"))
    return source, inspect(source)


@pytest.fixture(scope="module")
def vit(models_dir: Path) -> Opened:
    source = open_model(str(models_dir / "vit-digits"))
    return source, inspect(source)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"def function_{i}(x):\n    return x + {i}" for i in range(400)))
    return path


def _rows(data: Data) -> set[bytes]:
    return {row.tobytes() for row in data.inputs["input_ids"]}


def test_bundled_text_is_split_in_disjoint_parts(llama: Opened) -> None:
    loaded = calibration.load(None, *llama, scoring_tokens=2048, confirming_tokens=1024, seed=0)
    assert (loaded.kind, loaded.scoring.tokens, loaded.confirming.tokens) == ("tokens", 2048, 1024)
    assert not _rows(loaded.scoring) & _rows(loaded.confirming)
    again = calibration.load(None, *llama, scoring_tokens=2048, confirming_tokens=1024, seed=0)
    assert again.digest == loaded.digest
    other = calibration.load(None, *llama, scoring_tokens=2048, confirming_tokens=1024, seed=1)
    assert other.digest != loaded.digest


def test_more_confirming_tokens_leave_the_scoring_part(llama: Opened, text: Path) -> None:
    """A table made before stays valid when only the confirmation grows."""
    few, more = (
        calibration.load(text, *llama, scoring_tokens=1024, confirming_tokens=tokens) for tokens in (256, 2048)
    )
    assert few.scoring.digest == more.scoring.digest


def test_json_lines_and_token_files(llama: Opened, tmp_path: Path, text: Path) -> None:
    lines = tmp_path / "docs.jsonl"
    lines.write_text("\n".join(json.dumps({"text": part}) for part in text.read_text().split("\n\n")))
    assert calibration.load(lines, *llama, scoring_tokens=512, confirming_tokens=512).scoring.items == 2
    ids = np.random.default_rng(0).integers(0, 2000, 2000)
    np.save(tmp_path / "flat.npy", ids)
    assert calibration.load(tmp_path / "flat.npy", *llama).scoring.inputs["input_ids"].shape[1] == 256
    np.savez(tmp_path / "rows.npz", input_ids=ids.reshape(20, 100))
    loaded = calibration.load(tmp_path / "rows.npz", *llama, scoring_tokens=1000, confirming_tokens=500)
    assert (loaded.scoring.tokens, loaded.confirming.tokens) == (1000, 500)


def test_evaluation_data_keeps_the_order_of_the_file(llama: Opened, tmp_path: Path) -> None:
    ids = np.arange(1000).reshape(10, 100)
    np.savez(tmp_path / "rows.npz", input_ids=ids)
    data = calibration.load_data(tmp_path / "rows.npz", *llama, tokens_wanted=300)
    assert np.array_equal(data.inputs["input_ids"], ids[:3])


def test_images(vit: Opened, tiny: dict[str, Opened], tmp_path: Path) -> None:
    bundled = calibration.load(None, *vit, scoring_tokens=100, confirming_tokens=50)
    assert (bundled.scoring.items, bundled.confirming.items, bundled.kind) == (100, 50, "images")
    pixels = image_data(9)
    np.savez(tmp_path / "images.npz", images=pixels.inputs["pixel_values"], labels=pixels.labels)
    loaded = calibration.load(tmp_path / "images.npz", *tiny["vit"], scoring_tokens=6, confirming_tokens=3)
    assert loaded.scoring.labels is not None
    np.savez(tmp_path / "wrong.npz", images=np.zeros((3, 2, 8, 8), np.float32))
    with pytest.raises(InvalidCalibration, match="do not fit"):
        calibration.load(tmp_path / "wrong.npz", *tiny["vit"])


def _files(folder: Path) -> dict[str, Path]:
    contents = {
        "empty.txt": b"", "blank.txt": b" \n\n ", "one.txt": b"one line", "binary.txt": bytes(range(256)) * 40,
        "broken.jsonl": b'{"text": "a"}\n{"nothing": 1}\n', "number.jsonl": b'{"text": 3}\n', "deep.jsonl": b"[" * 9999,
        "garbage.npz": b"PK\x03\x04 not a zip", "garbage.npy": b"\x93NUMPY", "noarrays.npz": b"",
        "bytes.npy": bytes(99),
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    np.savez(folder / "noarrays.npz", other=np.zeros(3))
    np.savez(folder / "pickled.npz", input_ids=np.array([{}], dtype=object))
    np.save(folder / "large.npy", np.full((4, 8), 99_999))
    np.save(folder / "negative.npy", np.full((4, 8), -1))
    np.save(folder / "long.npy", np.zeros((4, 999), np.int64))
    np.save(folder / "same.npy", np.zeros((4, 9), np.int64))
    np.save(folder / "floats.npy", np.zeros((4, 8)))
    return {path.name: path for path in folder.iterdir()}


BAD = {
    "empty.txt": "empty", "blank.txt": "empty", "one.txt": "too short", "binary.txt": "binary",
    "missing.txt": "no such",
    "broken.jsonl": "line 2", "number.jsonl": "no text", "deep.jsonl": "line 1", "garbage.npz": "no readable numpy",
    "bytes.npy": "other bytes",
    "garbage.npy": "no readable numpy", "noarrays.npz": "neither token ids", "pickled.npz": "no readable numpy",
    "large.npy": "outside the model's vocabulary", "negative.npy": "outside", "long.npy": "longer than",
    "same.npy": "again and again", "floats.npy": "must be integers",
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_bad_files_are_refused_with_a_hint(llama: Opened, tmp_path: Path, name: str) -> None:
    path = _files(tmp_path).get(name, tmp_path / name)
    with pytest.raises(InvalidCalibration, match=BAD[name]) as caught:
        calibration.load(path, *llama)
    assert caught.value.expected or caught.value.got or caught.value.hint


def test_text_for_an_image_model_and_images_without_a_default(vit: Opened, tmp_path: Path, text: Path) -> None:
    with pytest.raises(InvalidCalibration, match="needs images"):
        calibration.load(text, *vit)
    source, inventory = vit
    config = {**source.config, "image_size": 224, "num_channels": 3}
    object.__setattr__(source, "config", config)
    with pytest.raises(InvalidCalibration, match="no bundled images"):
        calibration.load(None, source, inventory)


def test_a_model_without_tokenizer_says_so(tiny: dict[str, Opened], text: Path) -> None:
    with pytest.raises(InvalidCalibration, match="no tokenizer"):
        calibration.load(text, *tiny["llama"])


def test_memory_that_runs_out_in_the_tokenizer(llama: Opened, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it was told as a tokenizer that cannot be read."""

    def full(*arguments: object, **more: object) -> object:
        raise MemoryError

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", full)
    with pytest.raises(OutOfResources, match="memory"):
        calibration.load(text, *llama)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=40), st.integers(1, 20), st.integers(1, 20), st.integers(0, 9))
def test_split_never_shares_an_item(values: list[int], scoring: int, confirming: int, seed: int) -> None:
    data = Data("tokens", {"input_ids": np.array(values)[:, None]})
    first, second = (
        {values[i] for i in rows} for rows in split(data, scoring=scoring, confirming=confirming, seed=seed)
    )
    assert not first & second
    distinct = len(set(values))
    assert len(first) + len(second) == min(distinct, scoring + confirming)
    assert first
    assert second or distinct == 1


def test_random_items_for_every_task(tiny: dict[str, Opened]) -> None:
    for name, key in (("llama", "input_ids"), ("vit", "pixel_values"), ("bert", "input_ids")):
        first, again, other = (
            calibration.load("random", *tiny[name], scoring_tokens=80, confirming_tokens=80, seed=seed)
            for seed in (1, 1, 2)
        )
        assert first.digest == again.digest != other.digest
        assert first.description.startswith("random")
        assert first.scoring.items > 0 < first.confirming.items
        assert key in first.scoring.inputs
        assert not set(first.scoring.item_digests()) & set(first.confirming.item_digests())


def test_a_model_writes_its_own_text(tiny: dict[str, Opened]) -> None:
    from bitwright.core.errors import Unsupported

    first, again = (
        calibration.load("self", *tiny["llama"], scoring_tokens=128, confirming_tokens=64, seed=3) for _ in range(2)
    )
    ids = first.scoring.inputs["input_ids"]
    assert ids.shape[1] == 64
    assert 0 <= ids.min() <= ids.max() < 50
    assert first.digest == again.digest
    assert first.description.startswith("self")
    with pytest.raises(Unsupported, match="causal"):
        calibration.load("self", *tiny["vit"])


def test_written_text_is_likelier_than_random_text(llama: Opened) -> None:
    """What a trained model writes, it finds likely; random tokens it does not."""
    from sensitivity.evaluate import measure

    own = calibration.load_data("self", *llama, tokens_wanted=512)
    noise = calibration.load_data("random", *llama, tokens_wanted=512)
    perplexity = [measure(*llama, {"original": None}, data)["original"].extra["perplexity"] for data in (own, noise)]
    assert perplexity[0] < perplexity[1] / 3
