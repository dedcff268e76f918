"""A rounded KV cache: rounding as the format's own quantizer does it, measured losses, everything put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.core.errors import Unsupported
from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from quantizers.rtn import QUANTIZER
from sensitivity.kv_cache import Choice, cached_runner, measure_kv, rounded, rounded_cache
from tests.sensitivity.tiny_models import DATA, save_model


def test_rounding_is_that_of_the_format() -> None:
    values = torch.randn(2, 3, 5, 32, generator=torch.Generator().manual_seed(0))
    flat = values.numpy().reshape(-1, 32)
    expected = QUANTIZER.quantize(flat, parse_format("q4_0")).dequantize().reshape(values.shape)
    assert np.array_equal(rounded(values, "q4_0").numpy(), expected)
    assert torch.equal(rounded(values, "f16"), values.half().float())
    assert torch.equal(rounded(values, "fp8"), values.to(torch.float8_e4m3fn).float())


def test_losses_fall_with_bits_and_the_model_is_put_back(tmp_path: Path) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    source = open_model(str(save_model("llama", tmp_path)))
    inventory = inspect(source)
    choices = [Choice("both", "fp16"), Choice("both", "fp8"), Choice("keys", "q4_0"), Choice("keys", "q8_0")]
    found = measure_kv(source, inventory, choices, DATA["llama"]())
    assert found[choices[0]] is None
    fp8, four, eight = (found[choice] for choice in choices[1:])
    assert fp8 is not None
    assert four is not None
    assert eight is not None
    assert fp8.kl > 0
    assert four.kl > eight.kl > 0
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_variants_of_a_cached_runner_have_the_cache_and_the_original_has_not(tmp_path: Path) -> None:
    source = open_model(str(save_model("llama", tmp_path)))
    runner = cached_runner(source, inspect(source), [Choice("keys", "q4_0"), Choice("values", "fp16")])
    data = DATA["llama"]()
    with torch.inference_mode():
        plain = runner.output(data)
        with runner.replaced({}):
            assert not torch.equal(runner.output(data), plain)
        assert torch.equal(runner.output(data), plain)


def test_attention_that_cannot_be_listened_to_is_refused() -> None:
    model = torch.nn.Linear(2, 2)
    model.config = type("Config", (), {"_attn_implementation": "none such"})()  # type: ignore[assignment]
    with pytest.raises(Unsupported), rounded_cache(model, Choice("keys", "q4_0")):
        pass
