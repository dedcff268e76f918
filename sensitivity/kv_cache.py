"""What a quantized KV cache costs: the model runs with keys or values rounded to each format, and the KL is measured.

Rounding happens where an engine rounds: after the rotary embedding, before attention reads the cache, head by head
along the head's size. Losses of keys and of values are measured apart and add up like those of units (second order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bitwright.core.errors import Unsupported
from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from quantizers.rtn import QUANTIZER
from sensitivity.base import Progress
from sensitivity.data import Data
from sensitivity.evaluate import measure_weights
from sensitivity.on_device import back, here
from sensitivity.quality import Quality
from sensitivity.runner import Runner, load_runner

#: As for probes of single units: passes are few, but each is a whole forward pass.
TOKENS = 2048
#: Formats of the cache that round to a float type.
_CASTS: Mapping[str, torch.dtype] = {
    "f16": torch.float16, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn,
}  # fmt: skip
#: 16-bit caches are what models run with: their loss is taken as 0 and not measured.
UNROUNDED = frozenset({"f32", "f16", "fp16", "bf16"})
PARTS = ("keys", "values")


@dataclass(frozen=True)
class Choice:
    """One format for one part of the cache: `keys`, `values` or `both`."""

    part: str
    format: str


def rounded(values: torch.Tensor, format: str) -> torch.Tensor:
    """The numbers that a cache of this format gives back. (..., head size). Raises UnknownName."""
    if format in _CASTS:
        return values.to(_CASTS[format]).to(values.dtype)
    flat = np.ascontiguousarray(back(values.float().reshape(-1, values.shape[-1])))
    found = QUANTIZER.quantize(flat, parse_format(format), name="the KV cache").dequantize()
    return here(found).reshape(values.shape).to(values.dtype)


@contextmanager
def rounded_cache(model: torch.nn.Module, choice: Choice) -> Iterator[None]:
    """The model with every layer's keys or values rounded before attention. Raises Unsupported."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = str(getattr(model.config, "_attn_implementation", ""))
    if name not in ALL_ATTENTION_FUNCTIONS:
        raise Unsupported(
            "this model's attention cannot be listened to", expected="transformers' sdpa attention", got=name or "none",
            hint="give a budget for the weights alone",
        )  # fmt: skip
    plain: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS[name]

    def attention(module: Any, query: Any, key: torch.Tensor, value: torch.Tensor, *rest: Any, **options: Any) -> Any:
        key = rounded(key, choice.format) if choice.part in ("keys", "both") else key
        value = rounded(value, choice.format) if choice.part in ("values", "both") else value
        return plain(module, query, key, value, *rest, **options)

    ALL_ATTENTION_FUNCTIONS[name] = attention
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS[name] = plain


@dataclass(frozen=True, eq=False)
class _ProbeRunner(Runner):
    """A runner whose variants are formats of the cache instead of weights."""

    @contextmanager
    def replaced(self, weights: Mapping[str, Any]) -> Iterator[None]:
        with rounded_cache(self.model, weights["choice"]):
            yield


@dataclass(frozen=True, eq=False)
class _CachedRunner(Runner):
    """A runner whose variants also run with a rounded cache; the original does not."""

    cache: tuple[Choice, ...] = ()

    @contextmanager
    def replaced(self, weights: Mapping[str, Any]) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(super().replaced(weights))
            for choice in self.cache:
                stack.enter_context(rounded_cache(self.model, choice))
            yield


def cached_runner(source: ModelSource, inventory: Inventory, cache: Sequence[Choice]) -> Runner:
    """A runner that measures every variant with this cache. Raises as `load_runner`."""
    rounding = tuple(choice for choice in cache if choice.format not in UNROUNDED)
    plain = load_runner(source, inventory)
    return _CachedRunner(plain.source, plain.inventory, plain.model, plain.head, plain.slices, plain.warnings, rounding)


def measure_kv(
    source: ModelSource,
    inventory: Inventory,
    choices: Sequence[Choice],
    data: Data,
    *,
    progress: Progress | None = None,
) -> dict[Choice, Quality | None]:
    """KL of each choice against the original, on the first TOKENS tokens; None where nothing is rounded.

    Raises Unsupported, NotFinite, InvalidCalibration.
    """
    asked = [choice for choice in dict.fromkeys(choices) if choice.format not in UNROUNDED]
    found: dict[Choice, Quality | None] = dict.fromkeys(choices)
    if not asked:
        return found
    plain = load_runner(source, inventory)
    runner = _ProbeRunner(plain.source, plain.inventory, plain.model, plain.head, plain.slices, plain.warnings)
    per_item = max(1.0, data.tokens / max(1, data.items))
    taken = data.take(np.arange(min(data.items, max(1, round(TOKENS / per_item)))))
    makers = {f"{c.part} {c.format}": (lambda c=c: {"choice": c}) for c in asked}
    quality = measure_weights(runner, makers, taken, progress=progress)
    return {**found, **{choice: quality[f"{choice.part} {choice.format}"] for choice in asked}}
