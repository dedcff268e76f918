"""Models that break scoring, in memory and block by block: typed errors or stated fallbacks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from bitwright.core.errors import InvalidModel, JobFailed, NotFinite, OutOfResources, Unsupported
from bitwright.models import inspect, open_model
from sensitivity.evaluate import measure_variants
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import DATA, Opened, calibrated, changed, save_model, token_data

FORMATS = ("int3-g32", "int8-g32")
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["memory", "blocks"])


@BOTH
def test_a_forward_of_nan(tmp_path: Path, stream: bool) -> None:
    opened = changed(tmp_path / "m", "model.norm.weight", np.nan)
    data = DATA["llama"]()
    with pytest.raises((NotFinite, InvalidModel)):
        score(*opened, FORMATS, calibration=calibrated(data), options={"stream": stream})
    with pytest.raises((NotFinite, InvalidModel)):
        measure_variants(*opened, {"same": lambda unit: None}, data, stream=stream)


@BOTH
def test_a_constant_model(tmp_path: Path, stream: bool) -> None:
    opened = changed(tmp_path / "m", "model.norm.weight", 0.0)
    with pytest.raises(JobFailed, match="no planned unit has any influence"):
        score(*opened, FORMATS, calibration=calibrated(DATA["llama"]()), options={"stream": stream})


@BOTH
def test_experts_that_no_token_reaches(tiny: dict[str, Opened], stream: bool) -> None:
    """A single token reaches two of four experts: cells of the others are stand-ins, named, never zero.

    Regression: queries and keys, which a sequence of one token does not use, were given their rounding, 1e-19.
    """
    source, inventory = tiny["mixtral"]
    data = token_data(1, 1)
    table = score(source, inventory, FORMATS, calibration=calibrated(data), options={"stream": stream})
    names = set(table.provenance["unmeasured"])
    rows = [i for i, unit in enumerate(inventory.units) if unit.name in names]
    experts = [i for i in rows if inventory.units[i].expert is not None]
    assert len(experts) == 2 * 2 * 3, "two experts of three matrices in each of two blocks"
    others = {inventory.units[i].module for i in rows} - {inventory.units[i].module for i in experts}
    assert others == {"self_attn.q_proj", "self_attn.k_proj"}
    assert (table.loss[rows] > 1e-6 * np.median(table.loss)).all()
    assert np.isnan(table.stderr[rows]).all()
    assert any("not reached" in words for words in table.provenance["warnings"])


@pytest.mark.parametrize("granularity", ["column", "row"])
def test_parts_of_experts_that_no_token_reaches(tiny: dict[str, Opened], granularity: str) -> None:
    """Regression: scoring columns (recipe `baq`) of a mixture with unreached experts ended in an IndexError."""
    source, inventory = tiny["mixtral"]
    table = score(
        source, inventory, ("int3-channel", "int8-channel"), metric="gptq-loss", granularity=granularity,
        calibration=calibrated(token_data(1, 1)),
    )  # fmt: skip
    assert len(table.provenance["unmeasured"]) == 2 * 2 * 3
    assert len(set(table.provenance["unmeasured"])) == 2 * 2 * 3
    assert (table.loss > 0).all()
    assert np.isfinite(table.loss).all()


@BOTH
def test_a_head_tied_to_the_embeddings(tmp_path: Path, stream: bool) -> None:
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).half().save_pretrained(tmp_path / "m")
    source = open_model(str(tmp_path / "m"))
    inventory = inspect(source)
    data = DATA["llama"]()
    table = score(source, inventory, FORMATS, calibration=calibrated(data), options={"stream": stream})
    assert (table.loss > 0).all()
    kl = measure_variants(source, inventory, {"same": lambda unit: None}, data, stream=stream)["same"].kl
    assert kl == pytest.approx(0.0, abs=1e-9)


@BOTH
def test_a_tied_head_that_is_no_copy_of_the_embeddings(tmp_path: Path, stream: bool) -> None:
    """Regression: in memory transformers kept the head that the files hold, block by block the embeddings stood in for
    it, and an engine would drop it: three different models."""
    save_model("llama", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    source = open_model(str(tmp_path / "m"))
    opened = source, inspect(source)
    with pytest.raises(InvalidModel, match=r"lm_head\.weight is not the copy"):
        score(*opened, FORMATS, calibration=calibrated(DATA["llama"]()), options={"stream": stream})
    with pytest.raises(InvalidModel, match=r"lm_head\.weight is not the copy"):
        measure_variants(*opened, {"same": lambda unit: None}, DATA["llama"](), stream=stream)


@BOTH
def test_a_stored_copy_of_the_embeddings_is_a_tied_head(tmp_path: Path, stream: bool) -> None:
    save_model("llama", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    source = open_model(str(tmp_path / "m"))
    table = score(
        source, inspect(source), FORMATS, calibration=calibrated(DATA["llama"]()), options={"stream": stream}
    )  # fmt: skip
    assert (table.loss > 0).all()


def test_blocks_that_share_their_weights_are_not_streamed(tiny: dict[str, Opened], monkeypatch) -> None:
    """A block that runs twice would be scored for its last run alone."""
    source, inventory = tiny["llama"]
    plain = transformers.LlamaModel.forward

    def twice(self: transformers.LlamaModel, *arguments: object, **more: object) -> object:
        self.layers[0](self.embed_tokens(more["input_ids"]), position_embeddings=(torch.ones(1), torch.ones(1)))
        return plain(self, *arguments, **more)

    monkeypatch.setattr(transformers.LlamaModel, "forward", twice)
    with pytest.raises(Unsupported):
        score(source, inventory, FORMATS, calibration=calibrated(DATA["llama"]()), options={"stream": True})


@BOTH
def test_memory_that_runs_out_inside_a_pass(tiny: dict[str, Opened], monkeypatch, stream: bool) -> None:
    def full(*arguments: object, **more: object) -> object:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(transformers.LlamaModel, "forward", full)
    with pytest.raises(OutOfResources, match="memory"):
        score(*tiny["llama"], FORMATS, calibration=calibrated(DATA["llama"]()), options={"stream": stream})
