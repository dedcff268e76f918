"""Calibration and evaluation files: text, JSON lines, numpy arrays of token ids or images."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration

#: What is read of a text at most; calibration needs far less.
TEXT_BYTES = 64 << 20
ARRAY_BYTES = 2 << 30
ARRAY_SUFFIXES = (".npz", ".npy")
_IMAGES, _LABELS, _TOKENS = ("images", "pixel_values", "x"), ("labels", "y"), ("input_ids",)


def read_texts(path: Path) -> list[str]:
    """Documents of a text file (one) or a JSON-lines file (one a line). Raises InvalidCalibration."""
    _check_file(path)
    with path.open("rb") as file:
        raw = file.read(TEXT_BYTES)
    if not raw.strip():
        raise InvalidCalibration(
            "the calibration file is empty", got=f"{path.name}: {len(raw)} bytes", hint="give a text"
        )
    text = _decode(raw, path)
    return _json_lines(text, path) if path.suffix in (".jsonl", ".ndjson") else [text]


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InvalidCalibration(
            "there is no such calibration file", expected="a text, .jsonl, .npz or .npy file", got=str(path),
            hint="check the path, or leave it out for the bundled text",
        )  # fmt: skip


def _decode(raw: bytes, path: Path) -> str:
    cut = len(raw) == TEXT_BYTES
    text = raw.decode("utf-8", errors="replace")
    wrong = text.count("�") - (1 if cut else 0)
    if b"\0" in raw or wrong > max(0, len(text) // 1000):
        raise InvalidCalibration(
            "the calibration file is binary", expected="UTF-8 text, .jsonl, .npz or .npy", got=path.name,
            hint="convert it to text, or save token ids or images with numpy",
        )  # fmt: skip
    return text.removeprefix("﻿")


def _json_lines(text: str, path: Path) -> list[str]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            value = value["text"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidCalibration(
                f"line {number} of {path.name} is not a document",
                expected='one JSON object a line with a member "text"', got=ascii(line)[:80],
            ) from error  # fmt: skip
        if not isinstance(value, str):
            raise InvalidCalibration(f'"text" in line {number} of {path.name} is no text', got=ascii(value)[:80])
        if value.strip():
            found.append(value)
    if not found:
        raise InvalidCalibration("the calibration file has no text", got=path.name)
    return found


def read_arrays(path: Path) -> tuple[str, NDArray[Any], NDArray[np.int64] | None]:
    """(`images` or `input_ids`, the array, labels or None). Raises InvalidCalibration."""
    _check_file(path)
    if path.stat().st_size > ARRAY_BYTES:
        raise InvalidCalibration(
            "the calibration file is too large", expected=f"at most {ARRAY_BYTES >> 30} GiB", got=path.name
        )
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        # numpy takes any unknown bytes for pickles, and says how to load those.
        words = "other bytes, or pickled objects" if "pickle" in str(error) else str(error)[:120]
        raise InvalidCalibration(
            "the calibration file is no readable numpy file", expected=".npz or .npy without pickles",
            got=f"{path.name}: {words}",
        ) from error  # fmt: skip
    if "" in arrays:
        array = arrays[""]
        arrays = {"input_ids" if array.ndim <= 2 else "images": array}
    labels = next((arrays[name] for name in _LABELS if name in arrays), None)
    for kind, names in (("input_ids", _TOKENS), ("images", _IMAGES)):
        for name in names:
            if name in arrays:
                return kind, arrays[name], _checked_labels(labels, len(np.atleast_1d(arrays[name])))
    raise InvalidCalibration(
        "the calibration file holds neither token ids nor images", got=f"arrays: {', '.join(sorted(arrays))[:120]}",
        expected=f"an array named {', '.join(_TOKENS)} or {', '.join(_IMAGES)}",
    )  # fmt: skip


def _checked_labels(labels: NDArray[Any] | None, items: int) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    if labels.shape != (items,) or not np.issubdtype(labels.dtype, np.integer):
        raise InvalidCalibration(
            "the labels do not fit", expected=f"{items} integers", got=f"{labels.dtype} {labels.shape}"
        )
    return labels.astype(np.int64)
