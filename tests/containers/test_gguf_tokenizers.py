"""Tokenizers through a GGUF file and back: byte-fallback BPE, SentencePiece's file, WordPiece; ids are the same."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.models.gguf_text import tokenizer_files
from quantizers.containers.gguf.sentencepiece import read_pieces
from quantizers.containers.gguf.tokenizer import tokenizer_metadata
from tests.containers.test_transformers_load import minilm

tokenizers = pytest.importorskip("tokenizers")
TEXTS = [
    "def read(self, path):\n    return 1  # \u00e9t\u00e9", "  two spaces, then\ttab", "",
    "na\u00efve \u65e5\u672c \U0001f600!",
    "A cat sits on the mat; nobody minds.", "x" * 40,
]  # fmt: skip
SPACE = "\u2581"
SIZE = 420


def sentence_piece(folder: Path, *, begin: bool = True) -> Any:
    """A BPE with byte fallback in SentencePiece's form, trained on this file."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers

    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    text = Path(__file__).read_text().splitlines()
    trained.train_from_iterator(text, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False))
    document = json.loads(trained.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    trained = Tokenizer.from_str(json.dumps(document))
    trained.add_tokens([AddedToken("<tool>", normalized=False)])
    if begin:
        trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    trained.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    folder.mkdir()
    trained.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return trained


def again(metadata: dict[str, Any]) -> Any:
    files = tokenizer_files({key: value.value for key, value in metadata.items()})
    return tokenizers.Tokenizer.from_str(files["tokenizer.json"])


@pytest.mark.parametrize("begin", [True, False])
def test_byte_fallback_goes_there_and_back(begin: bool, tmp_path: Path) -> None:
    ours = sentence_piece(tmp_path / "m", begin=begin)
    metadata = tokenizer_metadata(tmp_path / "m", {"vocab_size": SIZE + 8})
    assert metadata["tokenizer.ggml.model"].value == "llama"
    assert metadata["tokenizer.ggml.add_bos_token"].value is begin
    assert metadata["tokenizer.ggml.add_eos_token"].value is False
    back = again(metadata)
    for text in [*TEXTS, "call <tool> now"]:
        assert back.encode(text).ids == ours.encode(text).ids, text
        assert back.decode(back.encode(text).ids).strip() == text.strip() or "<tool>" in text


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def tokenizer_model(folder: Path, kind: int = 2) -> bytes:
    """What SentencePiece would have written for the tokenizer in `folder`: scores are minus the rank of a merge."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    rank: dict[str, int] = {}
    for position, pair in enumerate(model["merges"]):
        rank.setdefault("".join(pair), position)
    data = b""
    for text, number in sorted(model["vocab"].items(), key=lambda item: item[1]):
        type_ = 2 if text == "<unk>" else 3 if number < 3 else 6 if text.startswith("<0x") else 1
        score = struct.pack("<f", -float(rank.get(text, 10_000)))
        data += _field(1, _field(1, text.encode()) + bytes([2 << 3 | 5]) + score + bytes([3 << 3, type_]))
    return data + _field(2, bytes([3 << 3, kind])) + _field(3, bytes([3 << 3, 1]))


def test_sentencepieces_own_file_goes_there_and_back(tmp_path: Path) -> None:
    ours = sentence_piece(tmp_path / "m")
    data = tokenizer_model(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    (tmp_path / "m" / "tokenizer.model").write_bytes(data)
    added = {"added_tokens_decoder": {str(SIZE): {"content": "<tool>", "special": False}}}
    settings = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({**settings, **added}))
    metadata = tokenizer_metadata(tmp_path / "m", {"vocab_size": SIZE + 8})
    assert metadata["tokenizer.ggml.tokens"].value[SIZE] == "<tool>"
    assert metadata["tokenizer.ggml.bos_token_id"].value == 1
    back = again(metadata)
    for text in [*TEXTS, "call <tool> now"]:
        assert back.encode(text).ids == ours.encode(text).ids, text


def test_unigram_and_broken_files_are_refused(tmp_path: Path) -> None:
    sentence_piece(tmp_path / "m")
    with pytest.raises(Unsupported, match="merges"):
        read_pieces(tokenizer_model(tmp_path / "m", kind=1))
    data = tokenizer_model(tmp_path / "m")
    for cut in (0, 1, 5, len(data) // 2, len(data) - 5, len(data) - 9):
        with pytest.raises((InvalidModel, Unsupported)):
            read_pieces(data[:cut])
    for at in range(0, 60):
        try:
            read_pieces(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        except InvalidModel:
            continue


def test_word_piece_goes_there_and_back() -> None:
    folder = minilm()
    if folder is None:
        pytest.skip("the MiniLM model is not here")
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    back = again(tokenizer_metadata(folder, {"vocab_size": size}))
    ours = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours.no_padding()
    ours.no_truncation()
    for text in TEXTS:
        assert back.encode(text).ids == ours.encode(text).ids, text


def test_lists_that_do_not_fit_are_refused() -> None:
    base = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "b"]}
    with pytest.raises(InvalidModel, match="scores"):
        tokenizer_files({**base, "tokenizer.ggml.scores": [1.0]})
    with pytest.raises(InvalidModel, match="tokens"):
        tokenizer_files({**base, "tokenizer.ggml.tokens": [1, 2]})
    with pytest.raises(InvalidModel, match="token_type"):
        tokenizer_files({**base, "tokenizer.ggml.token_type": ["x", "y"]})
