"""Small language models of other data than the tests' models, trained in minutes: does what was found there transfer?

Usage: python -m benchmarks.held_out c-llama|c-mixtral|man-llama|man-mixtral --out DIR [--steps 1200]

    c     C headers, every .h file under /usr/include
    man   every manual page under /usr/share/man

split by file into train, valid and test. Sizes are no powers of two and no multiples of the groups of 64, heads are
shared (GQA), and the dense models tie their embeddings. Writes the model and valid.txt and test.txt beside it, for

    python -m benchmarks.metrics DIR/MODEL --metrics fisher,kl-probe --calibration DIR/MODEL/valid.txt \
        --evaluation DIR/MODEL/test.txt
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "models"))
import stdlib_training as training
from stdlib_text import split_of

CORPORA = {"c": ("/usr/include", "**/*.h"), "man": ("/usr/share/man", "man*/*.gz")}
#: Bytes of a file that are taken, and of a whole split: generated headers would outweigh everything else.
FILE_BYTES, SPLIT_BYTES = 20_000, {"train": 3_000_000, "valid": 300_000, "test": 300_000}
BATCH_SIZE, PEAK = 4, 3e-3
training.VOCAB_SIZE, training.CONTEXT = 1024, 128


def read(path: Path) -> str | None:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        return raw.decode("utf-8")[:FILE_BYTES]
    except UnicodeDecodeError:
        return None


def texts(corpus: str, split: str) -> list[str]:
    """Files of a split, in an order that has nothing to do with their names."""
    root, pattern = CORPORA[corpus]
    paths = [p for p in Path(root).glob(pattern) if p.is_file() and split_of(str(p)) == split]
    found, size = [], 0
    for path in sorted(paths, key=lambda p: (hash_of(p), p)):
        text = read(path)
        if text:
            found.append(text)
            size += len(text)
        if size > SPLIT_BYTES[split]:
            break
    return found


def hash_of(path: Path) -> int:
    import zlib

    return zlib.crc32(str(path).encode())


def llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=training.VOCAB_SIZE, hidden_size=160, intermediate_size=416, num_hidden_layers=5,
            num_attention_heads=5, num_key_value_heads=1, max_position_embeddings=training.CONTEXT,
            tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def mixtral() -> Any:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=training.VOCAB_SIZE, hidden_size=96, intermediate_size=160, num_hidden_layers=3,
            num_attention_heads=6, num_key_value_heads=3, num_local_experts=6, num_experts_per_tok=2,
            initializer_range=0.06, output_router_logits=True, router_aux_loss_coef=0.02,
            max_position_embeddings=training.CONTEXT, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


MODELS = {"llama": llama, "mixtral": mixtral}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[f"{c}-{m}" for c in CORPORA for m in MODELS])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    corpus, kind = arguments.name.split("-")
    folder = arguments.out / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("valid", "test"):
        (folder / f"{split}.txt").write_text("\n".join(texts(corpus, split)), encoding="utf-8")
    words = texts(corpus, "train")
    tokenizer = training.train_tokenizer(words)
    stream = training.token_stream(tokenizer, words)
    torch.manual_seed(training.SEED)
    model = MODELS[kind]()
    loss = training.train(model, stream, arguments.steps, BATCH_SIZE, PEAK)
    training.save(model, tokenizer, folder)
    held_out = training.token_stream(tokenizer, texts(corpus, "test"))[:32_768]
    print(
        f"{arguments.name}: {len(words)} files, {len(stream):,} tokens, {arguments.steps} steps, loss {loss:.3f}, "
        f"perplexity on held-out files {training.perplexity(training.reload(folder), held_out):.1f}"
    )


if __name__ == "__main__":
    main()
