"""A DeiT of 3-channel images drawn on the spot: twelve classes (outline x filling) in noise."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

SIDE, BATCH, PEAK, SEED = 20, 48, 1.5e-3, 20240608
OUTLINES, FILLINGS = ("disc", "square", "triangle", "cross"), ("plain", "striped", "hollow")
#: Images of valid.npz and test.npz.
KEPT = 4096


def draw(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (count, 3, SIDE, SIDE) of about unit size, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(OUTLINES) * len(FILLINGS), count)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    images = rng.normal(0, 0.35, (count, 3, SIDE, SIDE))
    for at, label in enumerate(labels):
        outline, filling = divmod(int(label), len(FILLINGS))
        size, centre = rng.uniform(4.5, 7.5), rng.uniform(7.5, SIDE - 8.5, 2)
        u, v = x - centre[0], y - centre[1]

        def inside(scale: float, outline: int = outline, u: NDArray = u, v: NDArray = v) -> NDArray[np.bool_]:
            return [
                np.hypot(u, v) < scale,
                np.maximum(abs(u), abs(v)) < 0.85 * scale,
                (v < 0.8 * scale) & (v > 2 * abs(u) - scale),
                (np.minimum(abs(u), abs(v)) < 0.33 * scale) & (np.maximum(abs(u), abs(v)) < scale),
            ][outline]

        mask = inside(size)
        if filling == 1:
            mask = mask & ((x + y + rng.integers(0, 4)) % 4 < 2)
        if filling == 2:
            mask = mask & ~inside(size - 2.2)
        colour = rng.uniform(-1, 1, 3)
        colour *= rng.uniform(0.7, 1.3) / np.linalg.norm(colour)
        images[at] += mask * colour[:, None, None]
    return images.astype(np.float32), labels


def model() -> transformers.DeiTForImageClassification:
    names = [f"{filling} {outline}" for outline in OUTLINES for filling in FILLINGS]
    config = transformers.DeiTConfig(
        image_size=SIDE, patch_size=4, num_channels=3, hidden_size=120, num_hidden_layers=5, num_attention_heads=5,
        intermediate_size=328, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.06,
        id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)},
    )  # fmt: skip
    return transformers.DeiTForImageClassification(config)


def train(name: str, folder: Path, steps: int) -> str:
    """Trains and saves the model with valid.npz and test.npz beside it; what came of it, in one line."""
    torch.manual_seed(SEED)
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps, pct_start=0.05)
    losses: list[float] = []
    for step in range(steps):
        pixels, labels = draw(BATCH, SEED + 10 + step)
        loss = network(pixel_values=torch.from_numpy(pixels), labels=torch.from_numpy(labels)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"{name} step {step + 1}/{steps} loss {np.mean(losses[-100:]):.4f}", file=sys.stderr)
    for seed, split in enumerate(("valid", "test")):
        pixels, labels = draw(KEPT, SEED + seed)
        np.savez(folder / f"{split}.npz", images=pixels, labels=labels)
    network.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    loaded = transformers.DeiTForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        found = loaded(pixel_values=torch.from_numpy(pixels), labels=torch.from_numpy(labels))
    right = (found.logits.argmax(-1) == torch.from_numpy(labels)).float().mean()
    return f"{steps} steps of {BATCH} images; on {KEPT} others loss {found.loss:.3f}, {right:.1%} right"
