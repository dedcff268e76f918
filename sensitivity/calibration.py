"""Calibration data: loaded from what the user names (or the bundled default), checked, and split in two.

Spec None is the bundled default; `random` draws tokens (or noise images), `self` lets the model write; otherwise a
file: text, `.jsonl` with a member "text" a line, `.npy` / `.npz` with `input_ids`, or with `images` (or `pixel_values`,
`x`) and perhaps `labels` (or `y`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import digest_json
from bitwright.core.errors import InvalidCalibration
from bitwright.core.inventory import Inventory
from bitwright.core.requests import RANDOM, SELF
from bitwright.models import ModelSource
from sensitivity import bundled, readers, tokens
from sensitivity.data import Calibration, Data, split
from sensitivity.synthetic import random_items

#: Characters read of the bundled text for a token wanted: few tokenizers make more than 6 characters a token.
CHARACTERS_A_TOKEN = 8
_CHUNK_WORDS = 60
_FEW = 8


def load(
    spec: str | Path | None,
    source: ModelSource,
    inventory: Inventory,
    *,
    scoring_tokens: int = 16_384,
    confirming_tokens: int = 16_384,
    seed: int = 0,
) -> Calibration:
    """Calibration data with disjoint scoring and confirming parts of about so many tokens (for images: items).

    Raises InvalidCalibration for data that is missing, empty, too short, binary or not for this model.
    """
    data, description = _load(spec, source, inventory, scoring_tokens + confirming_tokens, scoring_tokens, seed)
    size = max(1.0, data.tokens / max(1, data.items))
    if data.items < 2:
        raise InvalidCalibration(
            "the calibration data is too short to be split in a scoring and a confirming part",
            expected=f"at least 2 items of about {round(size)} tokens", got=f"{data.items} items",
            hint="give a longer text, or ask for fewer tokens",
        )  # fmt: skip
    wanted = [max(1, round(count / size)) for count in (scoring_tokens, confirming_tokens)]
    scoring, confirming = split(data, scoring=wanted[0], confirming=wanted[1], seed=seed)
    if not len(confirming):
        raise InvalidCalibration(
            "the calibration data holds the same item again and again",
            expected="at least 2 different items",
            got="1 item",
        )
    parts = data.take(scoring), data.take(confirming)
    digest = digest_json({"scoring": parts[0].digest, "confirming": parts[1].digest})
    return Calibration(data.kind, *parts, digest=digest, description=description)


def load_data(
    spec: str | Path | None, source: ModelSource, inventory: Inventory, *, tokens_wanted: int = 16_384, seed: int = 0
) -> Data:
    """Evaluation data: the first `tokens_wanted` tokens of a file in its order, or a sample of the bundled default."""
    data, _ = _load(spec, source, inventory, tokens_wanted, tokens_wanted, seed)
    count = max(1, round(tokens_wanted / max(1.0, data.tokens / max(1, data.items))))
    if spec is None:
        return data.take(split(data, scoring=count, confirming=0, seed=seed)[0])
    return data.take(np.arange(min(count, data.items)))


def _load(
    spec: str | Path | None, source: ModelSource, inventory: Inventory, wanted: int, part: int, seed: int
) -> tuple[Data, str]:
    images = inventory.task == "image-classification"
    if spec is None and images:
        data, description = _bundled_images(source), bundled.IMAGES_DESCRIPTION
    elif spec is None:
        data, description = _bundled_text(source, inventory, wanted, part)
    elif spec == RANDOM:
        data, description = random_items(source, inventory, wanted, seed), "random: drawn evenly"
    elif spec == SELF:
        from sensitivity.generated import self_written

        data, description = self_written(source, inventory, wanted, part, seed), "self: written by the model"
    elif Path(spec).suffix in readers.ARRAY_SUFFIXES:
        data, description = _arrays(Path(spec), source, images), Path(spec).name
    elif images:
        raise InvalidCalibration(
            "an image model needs images", expected=".npz or .npy with images (items, channels, height, width)",
            got=Path(spec).name, hint="save them with numpy.savez(file, images=..., labels=...)",
        )  # fmt: skip
    else:
        data, description = _texts(readers.read_texts(Path(spec)), source, inventory, part), Path(spec).name
    if data.items == 0:
        raise InvalidCalibration(
            "the calibration data is too short", expected=f"at least {tokens.sequence_length(source, part)} tokens",
            got="less than one sequence", hint="give a longer text",
        )  # fmt: skip
    tokens.check_tokens(data, source, inventory)
    return data, description


def _bundled_text(source: ModelSource, inventory: Inventory, wanted: int, part: int) -> tuple[Data, str]:
    if inventory.task != "causal-lm":
        return tokens.sentence_data(bundled.prose(), source), bundled.PROSE_DESCRIPTION
    texts = bundled.source_texts(wanted * CHARACTERS_A_TOKEN)
    return _texts(texts, source, inventory, part), bundled.DESCRIPTION


def _texts(texts: list[str], source: ModelSource, inventory: Inventory, part: int) -> Data:
    if inventory.task == "causal-lm":
        length = tokens.sequence_length(source, part)
        return Data("tokens", {"input_ids": tokens.token_blocks(texts, source, length=length)})
    return tokens.sentence_data([s for text in texts for s in sentences(text)], source)


def sentences(text: str) -> list[str]:
    """Paragraphs of a text (lines where it has hardly any), one line each, cut into chunks of at most 60 words."""
    parts = [part for part in text.split("\n\n") if part.strip()]
    parts = parts if len(parts) >= _FEW else [line for line in text.splitlines() if line.strip()]
    chunks: list[str] = []
    for part in parts:
        words = part.split()
        chunks.extend(" ".join(words[i : i + _CHUNK_WORDS]) for i in range(0, len(words), _CHUNK_WORDS))
    return chunks


def _arrays(path: Path, source: ModelSource, images: bool) -> Data:
    kind, array, labels = readers.read_arrays(path)
    if (kind == "images") is not images:
        raise InvalidCalibration(
            "the calibration data is of the wrong kind for this model",
            expected="images" if images else "token ids (input_ids) or a text", got=kind,
        )  # fmt: skip
    return _images(array, labels, source) if images else _token_ids(array, source)


def _token_ids(array: NDArray[Any], source: ModelSource) -> Data:
    if not np.issubdtype(array.dtype, np.integer) or array.ndim not in (1, 2):
        raise InvalidCalibration(
            "token ids must be integers",
            expected="(tokens,) or (sequences, tokens)",
            got=f"{array.dtype} {array.shape}",
        )
    ids = array.astype(np.int64)
    ids = tokens.blocks(ids, tokens.sequence_length(source, max(1, len(ids)))) if ids.ndim == 1 else ids
    return Data("tokens", {"input_ids": ids})


def _images(array: NDArray[Any], labels: NDArray[np.int64] | None, source: ModelSource) -> Data:
    pixels = array[:, None] if array.ndim == 3 else array
    shape = _image_shape(source)
    if pixels.ndim != 4 or not np.issubdtype(pixels.dtype, np.floating) or (shape and pixels.shape[1:] != shape):
        raise InvalidCalibration(
            "the images do not fit this model",
            expected=f"float (items, {', '.join(map(str, shape)) if shape else 'channels, height, width'}), normalised",
            got=f"{pixels.dtype} {pixels.shape}",
        )
    if not np.isfinite(pixels).all():
        raise InvalidCalibration("the images hold NaN or infinity")
    return Data("images", {"pixel_values": np.ascontiguousarray(pixels, np.float32)}, labels)


def _image_shape(source: ModelSource) -> tuple[int, ...] | None:
    size, channels = source.config.get("image_size"), source.config.get("num_channels", 3)
    if isinstance(size, int) and isinstance(channels, int):
        return channels, size, size
    return None


def _bundled_images(source: ModelSource) -> Data:
    if _image_shape(source) != (1, 8, 8):
        raise InvalidCalibration(
            "there are no bundled images for this model", expected="a model of 8 x 8 images with one channel",
            got=f"images of shape {_image_shape(source)}", hint="give some: --calibration FILE.npz with `images`",
        )  # fmt: skip
    return bundled.digits()
