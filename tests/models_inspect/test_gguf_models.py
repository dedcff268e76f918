"""GGUF files as models: the unpacked folder is the model that was written; narrower files are none to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from tests.models_inspect.checkpoints import LAYOUTS, SIZES, write
from tests.steps.bench import Bench

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_CACHE_DIR", str(tmp_path / "cache"))


def gguf_of(folder: Path, out: Path, format: str) -> tuple[Any, Any, Path]:
    source = open_model(str(folder))
    inventory = inspect(source)
    CONTAINERS.load("gguf").write(source, inventory, [parse_format(format)] * len(inventory.units), out)
    return source, inventory, out / "model.gguf"


@pytest.mark.parametrize(
    "layout", ["llama-gqa", "llama-tied", "qwen2-biases", "qwen3-norms", "mixtral-listed", "qwen3-moe-listed", "bert"]
)
@pytest.mark.parametrize("format", ["bf16", "q8_0"])
def test_what_was_written_is_the_model_that_is_read(layout: str, format: str, tmp_path: Path) -> None:
    config, shapes = LAYOUTS[layout]
    source, inventory, file = gguf_of(write(tmp_path / "m", ({**SIZES, **config}, shapes)), tmp_path / "out", format)
    again = open_model(str(file))
    found = inspect(again)
    assert [u.name for u in found.units] == [u.name for u in inventory.units]
    checkpoint = CONTAINERS.load("gguf").read(tmp_path / "out")
    for unit in found.units:
        assert np.array_equal(again.read_float32(unit.tensor, unit.index), checkpoint.dequantized(unit.name))
    for tensor in found.rest:
        assert np.array_equal(again.read_float32(tensor.name), source.read_float32(tensor.name)), tensor.name
    assert again.config["model_type"] == source.config["model_type"]
    assert open_model(str(file)).digest == again.digest


def test_a_trained_model_is_planned_and_requantized_from_its_8_bit_file(tmp_path: Path) -> None:
    """Tokenizer, config and weights came through: the model scores, and the new file's weights are those of the old."""
    _, _, file = gguf_of(MODELS / "llama-stdlib", tmp_path / "out", "q8_0")
    bench = Bench(tmp_path / "state")
    found = bench.run(
        "plan",
        model=str(file),
        budget="5bpw",
        metric="weight-mse",
        confirm=False,
        to="gguf",
        formats=("q4_0", "q5_0", "q8_0"),
        out=tmp_path / "new",
    )
    assert found["feasible"]
    source = open_model(str(file))
    old = json.loads((MODELS / "llama-stdlib" / "tokenizer.json").read_text())
    new = json.loads((source.path / "tokenizer.json").read_text())
    assert new["model"]["merges"] == [list(pair) for pair in old["model"]["merges"]]
    assert new["model"]["vocab"] | {row["content"]: row["id"] for row in new["added_tokens"]} == old["model"]["vocab"]
    from transformers import AutoTokenizer

    text = "def read(self, path):\n    return 1  # été\n"
    theirs, ours = (AutoTokenizer.from_pretrained(p)(text)["input_ids"] for p in (MODELS / "llama-stdlib", source.path))
    assert theirs == ours


def test_a_quantized_file_is_no_model_to_start_from(tmp_path: Path) -> None:
    _, _, file = gguf_of(MODELS / "llama-stdlib", tmp_path / "out", "q4_0")
    with pytest.raises(InvalidModel, match="already quantized") as caught:
        open_model(str(file))
    assert "bitwright import" in str(caught.value.hint)
    assert not (tmp_path / "cache" / "gguf").exists()


def test_architectures_that_are_not_read(tmp_path: Path) -> None:
    """A file whose architecture no map here has: one byte of its name changed."""
    _, _, file = gguf_of(MODELS / "llama-stdlib", tmp_path / "out", "fp16")
    data = file.read_bytes()
    at = data.index(b"general.architecture") + len(b"general.architecture") + 4 + 8
    assert data[at : at + 5] == b"llama"
    file.write_bytes(data[:at] + b"mamba" + data[at + 5 :])
    with pytest.raises(Unsupported, match="not read"):
        open_model(str(file))


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "original_max_position_embeddings": 64,
    "short_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5], "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5],
}  # fmt: skip


@pytest.mark.parametrize("scaling", [{"rope_type": "linear", "factor": 2.5}, YARN, LLAMA3, LONG])
def test_rope_scaling_goes_there_and_back(scaling: dict[str, Any], tmp_path: Path) -> None:
    config, shapes = LAYOUTS["llama-gqa"]
    change = {"rope_theta": 500000.0, "rope_scaling": scaling}
    _, _, file = gguf_of(write(tmp_path / "m", ({**SIZES, **config, **change}, shapes)), tmp_path / "out", "fp16")
    found = open_model(str(file)).config
    assert found["rope_theta"] == 500000.0
    assert found["rope_scaling"] == scaling
    from transformers import AutoConfig

    parsed = AutoConfig.from_pretrained(open_model(str(file)).path).rope_parameters
    assert parsed["rope_theta"] == 500000.0
    assert {key: parsed[key] for key in scaling} == scaling


@pytest.mark.parametrize(
    "scaling",
    [
        {**YARN, "beta_fast": 16},
        {**YARN, "attention_factor": 2.0},
        {**YARN, "truncate": False},
        {**LONG, "long_factor": [2.0] * 8},
        {**LONG, "attention_factor": None},
        {"rope_type": "dynamic", "factor": 2.0},
    ],
)
def test_rope_scaling_that_llama_cpp_would_compute_otherwise_is_refused(
    scaling: dict[str, Any], tmp_path: Path
) -> None:
    config, shapes = LAYOUTS["llama-gqa"]
    folder = write(tmp_path / "m", ({**SIZES, **config, "rope_scaling": scaling}, shapes))
    with pytest.raises(Unsupported, match="rope"):
        gguf_of(folder, tmp_path / "out", "fp16")
