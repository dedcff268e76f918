"""Small models of other data and other shapes than the tests' models, trained in minutes: do the findings transfer?

Usage: python -m benchmarks.held_out CORPUS-KIND --out DIR [--steps 1200]   doc-qwen2moe, perl-gemma2, ...
       python -m benchmarks.held_out shapes-deit --out DIR [--steps 1500]

    c       C headers, every .h file under /usr/include
    man     every manual page under /usr/share/man
    doc     what Debian's packages say of themselves: texts, change logs and HTML under /usr/share/doc
    perl    modules and manuals of Perl's library under /usr/share/perl
    shapes  drawn images: twelve classes (outline x filling) in noise, 3 channels (benchmarks/held_out_images.py)

Texts are split by file into train, valid and test. Kinds: benchmarks/held_out_models.py. Writes the model, valid and
test data beside it; benchmarks/held_out_table.py measures the table of docs/metrics.md on it.
"""

from __future__ import annotations

import argparse
import gzip
import math
import sys
import zlib
from pathlib import Path

import torch

from benchmarks import held_out_images
from benchmarks.held_out_models import KINDS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "models"))
import stdlib_training as training
from stdlib_text import split_of

CORPORA = {
    "c": ("/usr/include", ("**/*.h",)),
    "man": ("/usr/share/man", ("man*/*.gz",)),
    "doc": ("/usr/share/doc", ("**/*.txt", "**/*.md", "**/*.rst", "**/*.html", "**/*.gz")),
    "perl": ("/usr/share/perl", ("**/*.pm", "**/*.pod")),
}
#: Bytes of a file that are taken, and of a whole split: generated headers would outweigh everything else.
FILE_BYTES, SPLIT_BYTES = 20_000, {"train": 3_000_000, "valid": 300_000, "test": 300_000}
IMAGES = "shapes-deit"


def read(path: Path) -> str | None:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        return raw.decode("utf-8")[:FILE_BYTES]
    except UnicodeDecodeError:
        return None


def texts(corpus: str, split: str) -> list[str]:
    """Files of a split, in an order that has nothing to do with their names."""
    root, patterns = CORPORA[corpus]
    files = {p.resolve() for pattern in patterns for p in Path(root).glob(pattern) if p.is_file()}
    paths = [p for p in files if split_of(str(p)) == split]
    found, size = [], 0
    for path in sorted(paths, key=lambda p: (zlib.crc32(str(p).encode()), p)):
        text = read(path)
        if text:
            found.append(text)
            size += len(text)
        if size > SPLIT_BYTES[split]:
            break
    return found


def train_text(name: str, folder: Path, steps: int) -> str:
    """Trains and saves a language model; what came of it, in one line."""
    corpus, kind_name = name.split("-")
    kind = KINDS[kind_name]
    training.VOCAB_SIZE, training.CONTEXT = kind.vocabulary, kind.context
    for split in ("valid", "test"):
        (folder / f"{split}.txt").write_text("\n".join(texts(corpus, split)), encoding="utf-8")
    words = texts(corpus, "train")
    tokenizer = training.train_tokenizer(words)
    stream = training.token_stream(tokenizer, words)
    torch.manual_seed(training.SEED)
    model = kind.make(kind.vocabulary, kind.context)
    loss = training.train(model, stream, steps, kind.batch, kind.peak)
    training.save(model, tokenizer, folder)
    held_out = training.token_stream(tokenizer, texts(corpus, "test"))[:32_768]
    nats = math.log(training.perplexity(training.reload(folder), held_out))
    unigram = math.log(training.unigram_perplexity(stream, held_out))
    return (
        f"{len(words)} files, {len(stream):,} tokens, {steps} steps, loss {loss:.3f}; "
        f"on held-out files {nats:.3f} nats a token, unigram {unigram:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*(f"{c}-{k}" for c in CORPORA for k in KINDS), IMAGES], metavar="NAME")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    folder = arguments.out / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    make = held_out_images.train if arguments.name == IMAGES else train_text
    print(f"{arguments.name}: {make(arguments.name, folder, arguments.steps)}")


if __name__ == "__main__":
    main()
