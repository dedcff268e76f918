"""What train_llama.py and train_mixtral.py share: tokenizer, batches, training loop, perplexity, README."""

import math
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers
import torch
import transformers
from stdlib_text import committed_text, split_texts
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

SEED = 20240607
CONTEXT = 256
VOCAB_SIZE = 2048
END_OF_TEXT = "<|endoftext|>"
HERE = Path(__file__).resolve().parent


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with VOCAB_SIZE entries; END_OF_TEXT gets id 0."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, model_max_length=CONTEXT
    )


def token_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Encode the texts one after the other, END_OF_TEXT before each, into one long vector of token ids."""
    separator = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    # The inner tokenizer is used because the outer one warns about every text longer than the context.
    encoded = tokenizer.backend_tokenizer.encode_batch(texts)
    return torch.tensor([token for text in encoded for token in (separator, *text.ids)], dtype=torch.int64)


def batches(stream: torch.Tensor, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield (batch_size, CONTEXT) batches for ever: each epoch cuts the stream at a new offset and shuffles."""
    while True:
        offset = int(torch.randint(0, CONTEXT, (1,), generator=generator))
        rows = (len(stream) - offset) // CONTEXT
        windows = stream[offset : offset + rows * CONTEXT].view(rows, CONTEXT)
        order = torch.randperm(rows, generator=generator)
        for first in range(0, rows - batch_size + 1, batch_size):
            yield windows[order[first : first + batch_size]]


def parameter_groups(model: PreTrainedModel) -> list[dict[str, object]]:
    """Weight decay for the matrices only; norm weights must stay free to sit near one."""
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over the first 5 % of the steps, then a cosine down to zero."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(model: PreTrainedModel, stream: torch.Tensor, steps: int, batch_size: int, peak: float) -> float:
    """Train in place with AdamW and return the mean loss of the last 50 steps."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=peak, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    losses: list[float] = []
    started = time.perf_counter()
    model.train()
    for step, tokens in zip(range(steps), batches(stream, batch_size, generator), strict=False):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            seconds = time.perf_counter() - started
            print(f"step {step + 1}/{steps} loss {sum(losses[-50:]) / 50:.4f} {seconds:.0f} s", file=sys.stderr)
    return sum(losses[-50:]) / len(losses[-50:])


@torch.no_grad()
def perplexity(model: PreTrainedModel, stream: torch.Tensor) -> float:
    """Perplexity over consecutive windows of CONTEXT tokens; each window's first token is not scored."""
    model.eval()
    rows = len(stream) // CONTEXT
    total = 0.0
    for window in stream[: rows * CONTEXT].view(rows, CONTEXT).split(16):
        logits = model(input_ids=window, use_cache=False).logits[:, :-1].float()
        total += torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), window[:, 1:].reshape(-1), reduction="sum"
        ).item()
    return math.exp(total / (rows * (CONTEXT - 1)))


def unigram_perplexity(train_stream: torch.Tensor, stream: torch.Tensor) -> float:
    """Perplexity of `stream` under the token frequencies of the training split, with add-one smoothing."""
    counts = Counter(train_stream.tolist())
    total = len(train_stream) + VOCAB_SIZE
    loss = -sum(math.log((counts[token] + 1) / total) for token in stream.tolist())
    return math.exp(loss / len(stream))


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write config.json, an fp16 model.safetensors and the tokenizer files."""
    if hasattr(model.config, "output_router_logits"):
        model.config.output_router_logits = False  # only training needs them
    model.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # save_pretrained leaves it readable by its owner only
    tokenizer.save_pretrained(out)


def reload(out: Path) -> PreTrainedModel:
    """Load the saved fp16 weights in float32; complain if a name does not match or a value is not finite."""
    model, loading = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    if loading["missing_keys"] or loading["unexpected_keys"] or loading["mismatched_keys"]:
        raise RuntimeError(f"the saved file does not match the model: {loading}")
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise RuntimeError("the saved file holds values that are not finite")
    return model


def perplexity_facts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, train_stream: torch.Tensor
) -> dict[str, str]:
    """Measure the model on the two committed texts, beside the unigram baseline."""
    facts = {"parameters": f"{sum(weight.numel() for weight in model.parameters()):,}"}
    for split in ("valid", "test"):
        stream = token_stream(tokenizer, [committed_text(split)])
        facts[f"perplexity, text/{split}.txt"] = (
            f"{perplexity(model, stream):.3f} (unigram {unigram_perplexity(train_stream, stream):.1f};"
            f" {len(stream):,} tokens)"
        )
    return facts


def write_readme(out: Path, facts: dict[str, str]) -> None:
    """Record how this copy of the model came about."""
    lines = [
        f"# {out.name}",
        "",
        f"A small trained language model for the tests, made by `tests/models/train_{out.name.split('-')[0]}.py`.",
        "",
        "Data: the Python standard library's own source files, split by file (`tests/models/stdlib_text.py`);",
        f"byte-level BPE tokenizer with {VOCAB_SIZE} entries, trained on the training split; context {CONTEXT}.",
        "Weights are fp16; the perplexities were recomputed from the saved file, loaded in float32, over",
        f"consecutive windows of {CONTEXT} tokens.",
        "",
        "| fact | value |",
        "| --- | --- |",
    ]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    (out / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_model(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    out: Path,
    steps: int,
    batch_size: int,
    peak: float,
    more_facts: Callable[[PreTrainedModel, torch.Tensor], dict[str, str]] | None = None,
) -> None:
    """Train a model of the given class, save it under `out`, measure the saved copy and write its README.md.

    `more_facts` gets the reloaded model and the valid tokens and returns further rows for the README's table.
    """
    texts = split_texts("train")
    tokenizer = train_tokenizer(texts)
    stream = token_stream(tokenizer, texts)
    print(f"{len(texts)} training files, {len(stream):,} tokens", file=sys.stderr)

    torch.manual_seed(SEED)
    model = model_class(config)
    started = time.perf_counter()
    last_loss = train(model, stream, steps, batch_size, peak)
    seconds = time.perf_counter() - started
    save(model, tokenizer, out)

    facts = {
        "seed": str(SEED),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "training split": f"{len(texts)} files, {len(stream):,} tokens",
        "steps x batch x context": f"{steps} x {batch_size} x {CONTEXT}"
        f" ({steps * batch_size * CONTEXT / len(stream):.2f} epochs)",
        "peak learning rate": str(peak),
        "training wall time": f"{seconds:.0f} s on {torch.get_num_threads()} threads of a shared machine",
        "training loss, mean of the last 50 steps": f"{last_loss:.4f}",
    }
    reloaded = reload(out)
    facts |= perplexity_facts(reloaded, tokenizer, stream)
    if more_facts is not None:
        facts |= more_facts(reloaded, token_stream(tokenizer, [committed_text("valid")]))
    write_readme(out, facts)
    for name, value in facts.items():
        print(f"{name}: {value}", file=sys.stderr)
