"""QuantMoE-Bench's learned predictor of a block's cosine (arXiv:2406.08155, research/02 section 2 b 4).

For every block a small network reads a token's vector before the block and predicts the cosine of it and the vector
behind the block: Linear(d, 1024) - ReLU - Linear(1024, 1) - tanh, without biases; AdamW (1e-4, decay 1e-2), squared
error, one sequence a step, at most 100 epochs, a tenth of the sequences held back, stopped after 5 epochs without gain
and the best epoch kept. The block's score is the mean prediction over the calibration tokens. What it learns is what
`Block.cosine` measures outright, so the measured cosine is the default everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

WIDTH, EPOCHS, PATIENCE, RATE, DECAY = 1024, 100, 5, 1e-4, 1e-2
HELD_BACK = 0.1


@dataclass(frozen=True)
class Predicted:
    """mean: predicted cosine over all tokens. error: mean squared error on held back tokens; spread: their variance."""

    mean: float
    error: float
    spread: float


def predict_cosine(inputs: torch.Tensor, outputs: torch.Tensor, sequence: int, seed: int) -> Predicted:
    """inputs, outputs: (tokens, size), sequences of `sequence` tokens one after the other (at least two)."""
    target = torch.nn.functional.cosine_similarity(inputs.float(), outputs.float(), dim=-1)
    x, y = torch.split(inputs.float(), sequence), torch.split(target, sequence)
    held = max(1, round(HELD_BACK * len(x)))
    generator = torch.Generator().manual_seed(seed)
    first, second = (_uniform(rows, columns, generator) for rows, columns in ((WIDTH, inputs.shape[1]), (1, WIDTH)))
    optimizer = torch.optim.AdamW([first, second], lr=RATE, weight_decay=DECAY)

    def network(vectors: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.relu(vectors @ first.T) @ second.T)[:, 0]

    def held_error() -> float:
        with torch.no_grad():
            return float((network(torch.cat(x[-held:])) - torch.cat(y[-held:])).square().mean())

    best, kept, waited = held_error(), (first.detach().clone(), second.detach().clone()), 0
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for number in torch.randperm(len(x) - held, generator=generator).tolist():
                optimizer.zero_grad()
                (network(x[number]) - y[number]).square().mean().backward()
                optimizer.step()
            error = held_error()
            waited = 0 if error < best else waited + 1
            if error < best:
                best, kept = error, (first.detach().clone(), second.detach().clone())
            if waited == PATIENCE:
                break
    with torch.no_grad():
        first.copy_(kept[0])
        second.copy_(kept[1])
        mean = float(network(inputs.float()).mean())
    return Predicted(mean, best, float(torch.cat(y[-held:]).var(correction=0)))


def _uniform(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """What torch.nn.Linear starts from: uniform within 1 / sqrt(inputs)."""
    bound = columns**-0.5
    found: torch.Tensor = torch.rand(rows, columns, generator=generator) * (2 * bound) - bound
    found.requires_grad = True
    return found
