"""Train the small ViT test model on scikit-learn's handwritten digits and save it in Hugging Face layout.

Usage: python tests/models/train_vit.py [--steps N] [--out DIR]
"""

import argparse
import json
import math
import platform
import sys
import time
from pathlib import Path

import torch
import transformers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import ViTConfig, ViTForImageClassification

SEED = 20240607
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 2e-3
PIXEL_MAX = 16.0  # load_digits stores intensities 0..16
HERE = Path(__file__).resolve().parent

Split = tuple[torch.Tensor, torch.Tensor]


def load_split() -> tuple[Split, Split]:
    """Return ((train pixels, train labels), (test pixels, test labels)); pixels are in -1..1, shape (N, 1, 8, 8)."""
    digits = load_digits()
    pixels = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / PIXEL_MAX * 2.0 - 1.0
    labels = torch.tensor(digits.target, dtype=torch.int64)
    train_rows, test_rows = train_test_split(
        range(len(labels)), test_size=0.25, random_state=SEED, stratify=digits.target
    )
    return (pixels[train_rows], labels[train_rows]), (pixels[test_rows], labels[test_rows])


def build_model() -> ViTForImageClassification:
    """Build the untrained model; every linear layer has an input width that is a multiple of 64."""
    names = [str(digit) for digit in range(10)]
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    return ViTForImageClassification(config)


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over the first 5 % of the steps, then a cosine down to zero."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def shift_images(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift each image by at most one pixel each way; 1,347 training images are too few without it."""
    padded = torch.nn.functional.pad(pixels, (1, 1, 1, 1), value=-1.0)
    offsets = torch.randint(0, 3, (len(pixels), 2), generator=generator).tolist()
    return torch.stack([image[:, dy : dy + 8, dx : dx + 8] for image, (dy, dx) in zip(padded, offsets, strict=True)])


def train(model: ViTForImageClassification, data: Split, steps: int) -> float:
    """Train in place and return the mean loss of the last 100 steps."""
    pixels, labels = data
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    losses: list[float] = []
    model.train()
    for step in range(steps):
        rows = torch.randint(0, len(labels), (BATCH_SIZE,), generator=generator)
        loss = model(pixel_values=shift_images(pixels[rows], generator), labels=labels[rows]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {sum(losses[-100:]) / 100:.4f}", file=sys.stderr)
    return sum(losses[-100:]) / len(losses[-100:])


@torch.no_grad()
def evaluate(model: ViTForImageClassification, data: Split) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy)."""
    model.eval()
    pixels, labels = data
    output = model(pixel_values=pixels, labels=labels)
    return output.loss.item(), (output.logits.argmax(-1) == labels).float().mean().item()


def save(model: ViTForImageClassification, out: Path) -> None:
    """Write config.json, an fp16 model.safetensors and a preprocessor_config.json that repeats load_split's scaling."""
    model.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # save_pretrained leaves it readable by its owner only
    # Written by hand because ViTImageProcessor itself needs Pillow and torchvision, which nothing here uses.
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "size": {"height": 8, "width": 8},
        "do_rescale": True,
        "rescale_factor": 1.0 / PIXEL_MAX,
        "do_normalize": True,
        "image_mean": [0.5],
        "image_std": [0.5],
    }
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n", encoding="utf-8")


def write_readme(out: Path, facts: dict[str, str]) -> None:
    """Record how this copy of the model came about."""
    lines = [
        "# vit-digits",
        "",
        "A small trained `ViTForImageClassification` for the tests, made by `tests/models/train_vit.py`.",
        "",
        "Data: `sklearn.datasets.load_digits` (1,797 images, 8x8, one channel, 0..16 scaled to -1..1);",
        f"stratified 75/25 split with seed {SEED}. Training images are shifted by at most one pixel.",
        "Weights are fp16; the numbers below were recomputed from the saved file, loaded in float32.",
        "",
        "| fact | value |",
        "| --- | --- |",
    ]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    (out / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Train, save, reload and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=HERE / "vit-digits")
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    train_data, test_data = load_split()
    model = build_model()
    started = time.perf_counter()
    last_loss = train(model, train_data, arguments.steps)
    seconds = time.perf_counter() - started
    save(model, arguments.out)

    reloaded = ViTForImageClassification.from_pretrained(arguments.out, dtype=torch.float32)
    train_loss, train_accuracy = evaluate(reloaded, train_data)
    test_loss, test_accuracy = evaluate(reloaded, test_data)
    facts = {
        "seed": str(SEED),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "parameters": f"{sum(weight.numel() for weight in reloaded.parameters()):,}",
        "steps x batch": f"{arguments.steps} x {BATCH_SIZE}",
        "training wall time": f"{seconds:.0f} s on {torch.get_num_threads()} threads",
        "training loss, mean of the last 100 steps": f"{last_loss:.4f}",
        "train loss / accuracy (no shifts)": f"{train_loss:.4f} / {train_accuracy:.4f}",
        "test loss / accuracy": f"{test_loss:.4f} / {test_accuracy:.4f} ({len(test_data[1])} images)",
    }
    write_readme(arguments.out, facts)
    for name, value in facts.items():
        print(f"{name}: {value}", file=sys.stderr)


if __name__ == "__main__":
    main()
