"""Every metric on a GPU: the CPU's table, the same bytes from the same seed, float32 and bfloat16."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from bitwright.core.errors import OutOfResources
from bitwright.core.table import SensitivityTable
from bitwright.models import inspect, open_model
from sensitivity.scoring import score
from tests.gpu.places import CPU, GPU, nearly_full, on
from tests.sensitivity.test_second_device import ASKED, FORMATS, RTOL, quality
from tests.sensitivity.tiny_models import DATA, Opened, calibrated, token_data

#: Metrics that run the model, read block by block in bfloat16.
IN_BFLOAT16 = ("fisher", "kron", "hessian", "taylor", "grad-output")


def scored(
    opened: Opened, model: str, metric: str, options: dict[str, object], granularity: str = "tensor"
) -> SensitivityTable:
    return score(
        *opened, FORMATS, metric=metric, calibration=calibrated(DATA[model]()), samples=2, seed=3, options=options,
        granularity=granularity,
    )  # fmt: skip


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: "-".join(map(str, (*asked[:2], *asked[2], asked[3]))))
def test_a_table_is_the_cpus_and_the_same_twice(
    asked: tuple[str, str, dict[str, object], str], tiny: dict[str, Opened]
) -> None:
    model, metric, options, granularity = asked
    with on(CPU):
        here = scored(tiny[model], model, metric, options, granularity)
    with on(GPU):
        there, again = (scored(tiny[model], model, metric, options, granularity) for _ in range(2))
    np.testing.assert_array_equal(there.loss, again.loss)
    # output-kl is a difference of two log softmaxes in float32: of its largest cells four digits are known.
    floor = 1e-3 * float(here.loss.max()) if metric == "output-kl" else 1e-9
    np.testing.assert_allclose(there.loss, here.loss, rtol=RTOL, atol=floor)
    assert GPU in str(there.provenance["numerics"])


@pytest.mark.parametrize("metric", IN_BFLOAT16)
def test_bfloat16_is_as_near_as_on_the_cpu_and_the_same_twice(metric: str, tiny: dict[str, Opened]) -> None:
    half = {"dtype": "bfloat16"}
    with on(CPU):
        whole, here = scored(tiny["llama"], "llama", metric, {}), scored(tiny["llama"], "llama", metric, half)
    with on(GPU):
        there, again = (scored(tiny["llama"], "llama", metric, half) for _ in range(2))
    np.testing.assert_array_equal(there.loss, again.loss)

    def away(table: SensitivityTable) -> float:
        return float(np.sqrt(np.mean(np.log(table.loss / whole.loss) ** 2)))

    assert 0 < away(there) <= 2 * away(here) + 1e-3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["llama", "mixtral", "vit", "bert", "gpt2"])
def test_a_measured_plan_is_the_cpus(model: str, stream: bool, tiny: dict[str, Opened]) -> None:
    with on(CPU):
        here = quality(model, tiny[model], stream)
    with on(GPU):
        there, again = (quality(model, tiny[model], stream) for _ in range(2))
    np.testing.assert_array_equal(there, again)
    np.testing.assert_allclose(there, here, rtol=RTOL)


def test_a_full_gpu_is_a_typed_error_and_block_by_block_it_fits(tmp_path: Path) -> None:
    """24 blocks of 16 MiB where 250 MiB are left."""
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=512, intermediate_size=2048, num_hidden_layers=24, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "m")
    source = open_model(str(tmp_path / "m"))
    opened = source, inspect(source)
    calibration = calibrated(token_data(2, 16))
    with on(GPU):
        streamed = score(*opened, ("int4-g16",), calibration=calibration, samples=1, options={"stream": True})
        with nearly_full(250 << 20):
            found = score(*opened, ("int4-g16",), calibration=calibration, samples=1, options={"stream": True})
            with pytest.raises(OutOfResources, match="does not fit on cuda"):
                score(*opened, ("int4-g16",), calibration=calibration, samples=1, options={"stream": False})
    np.testing.assert_array_equal(found.loss, streamed.loss)
    assert json.dumps(found.provenance["numerics"])
