"""Items made up rather than read: random tokens and noise images, for metrics and calibration without data."""

from __future__ import annotations

import numpy as np

from bitwright.core.errors import InvalidCalibration, Unsupported
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from sensitivity.data import Data
from sensitivity.tokens import sequence_length, vocabulary_size

_STREAM = 0x5EED


def random_items(source: ModelSource, inventory: Inventory, wanted: int, seed: int) -> Data:
    """About `wanted` tokens drawn evenly from the vocabulary in whole sequences (image models: so many noise images).

    Raises Unsupported for models of unknown task, InvalidCalibration where the config does not say the sizes.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, _STREAM]))
    if inventory.task == "image-classification":
        shape = _image_shape(source)
        return Data("images", {"pixel_values": generator.standard_normal((max(2, wanted), *shape), np.float32)})
    if inventory.task == "unknown":
        raise Unsupported("what this model reads is not known, so nothing can be made up for it", got="task unknown")
    size, length = vocabulary_size(source), sequence_length(source, wanted)
    if size is None:
        raise InvalidCalibration("random tokens need the size of the vocabulary", expected="vocab_size in config.json")
    ids = generator.integers(0, size, (max(2, round(wanted / length)), length))
    if inventory.task == "causal-lm":
        return Data("tokens", {"input_ids": ids})
    return Data("sentences", {"input_ids": ids, "attention_mask": np.ones_like(ids)})


def _image_shape(source: ModelSource) -> tuple[int, int, int]:
    size, channels = source.config.get("image_size"), source.config.get("num_channels", 3)
    if not isinstance(size, int) or not isinstance(channels, int):
        raise InvalidCalibration("noise images need their size", expected="image_size in config.json", got=repr(size))
    return channels, size, size
