"""Measured quality: how far a changed model's output lies from the original's, with error bars.

Items (sequences, images, sentences) are independent, tokens of one sequence are not: every standard error is taken over
items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sensitivity.data import Data
from sensitivity.on_device import back, here
from sensitivity.partial import State

Floats = NDArray[np.float64]
#: Two-sided 95 % point of the normal distribution.
Z95 = 1.959963984540054
#: Pairs of sentences whose similarities are compared at most (all pairs of 1,000 sentences).
MAX_PAIRED = 1_000
EMPTY: State = {}


@dataclass(frozen=True)
class Quality:
    """kl: mean divergence in `unit`; stderr: its standard error over items; tokens: what was measured on."""

    kl: float
    stderr: float
    tokens: int
    unit: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "kl": self.kl,
            "stderr": self.stderr,
            "tokens": self.tokens,
            "unit": self.unit,
            "extra": dict(self.extra),
        }


class Comparison(Protocol):
    """Takes batches of original and changed outputs, gives a Quality. Goes on from what `kept` holds."""

    @property
    def items(self) -> int: ...

    def add(self, original: torch.Tensor, changed: torch.Tensor, data: Data) -> None: ...

    def result(self) -> Quality: ...

    def state(self) -> State:
        """All that is known, for `kept`."""
        ...


class Rows:
    """Numbers of items under names, grown batch by batch: what every comparison keeps. Arrays (items, ...)."""

    def __init__(self, kept: State) -> None:
        self._parts: dict[str, list[NDArray[Any]]] = {name: [array] for name, array in kept.items()}

    def grow(self, **rows: NDArray[Any]) -> None:
        for name, array in rows.items():
            self._parts.setdefault(name, []).append(array)

    def joined(self) -> dict[str, NDArray[Any]]:
        for name, parts in self._parts.items():
            self._parts[name] = [np.concatenate(parts)]
        return {name: parts[0] for name, parts in self._parts.items()}

    @property
    def items(self) -> int:
        return max((sum(map(len, parts)) for parts in self._parts.values()), default=0)


class _Kept:
    """What every comparison does with its rows."""

    def __init__(self, kept: State = EMPTY) -> None:
        self._rows = Rows(kept)

    @property
    def items(self) -> int:
        return self._rows.items

    def state(self) -> State:
        return self._rows.joined()


def mean_and_error(values: Floats) -> tuple[float, float]:
    """Mean over items and its standard error (NaN-free: 0 for a single item)."""
    if len(values) < 2:
        return float(values.mean()), 0.0
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def wilson_interval(share: float, trials: float) -> tuple[float, float]:
    """95 % Wilson score interval (E. B. Wilson, JASA 1927) of a share seen in so many (effective) trials."""
    z2 = Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def share_with_interval(values: Floats, positions: int) -> tuple[float, list[float]]:
    """Mean of per-item shares and its 95 % interval: Wilson's, with as many trials as the spread over items allows.

    Effective trials = p (1 - p) / stderr^2, never more than the positions counted.
    """
    share, error = mean_and_error(values)
    trials = float(positions)
    if error > 0 and 0 < share < 1:
        trials = min(trials, max(1.0, share * (1 - share) / error**2))
    return share, list(wilson_interval(share, trials))


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) over the last axis, in nats, from float64 log-probabilities.

    Rounding of float32 logits moves it by its square only; float32 log-probabilities would move it by 1e-7.
    """
    return (p.exp() * (p - q)).sum(-1).clamp_(min=0.0)


class TokenComparison(_Kept):
    """Causal language models: KL, perplexities, top-1 agreement. Logits (items, positions, vocabulary)."""

    def add(self, original: torch.Tensor, changed: torch.Tensor, data: Data) -> None:
        targets = here(data.inputs["input_ids"])
        for first, second, ids in zip(original, changed, targets, strict=True):
            agree = (first.argmax(-1) == second.argmax(-1)).double().mean()
            p, q = torch.log_softmax(first.double(), -1), torch.log_softmax(second.double(), -1)
            losses = [-log[:-1].gather(-1, ids[1:, None]).sum() for log in (p, q)]
            row = [divergence(p, q).mean(), agree, *losses]
            self._rows.grow(values=np.array([torch.stack(row).tolist()]), positions=np.array([len(ids)]))

    def result(self) -> Quality:
        rows = self._rows.joined()
        kl, agree, *losses = rows["values"].T
        positions = int(rows["positions"].sum())
        mean, error = mean_and_error(kl)
        share, interval = share_with_interval(agree, positions)
        predicted = max(1, positions - len(kl))
        before, after = (float(np.exp(loss.sum() / predicted)) for loss in losses)
        extra = {
            "perplexity": after, "perplexity_original": before, "agreement": share, "agreement_interval": interval,
            "sequences": len(kl),
        }  # fmt: skip
        return Quality(mean, error, positions, "nats of KL per token", extra)


class ClassComparison(_Kept):
    """Classifiers: KL an item, agreement, and accuracy where labels came with the data. Logits (items, classes)."""

    def add(self, original: torch.Tensor, changed: torch.Tensor, data: Data) -> None:
        first, second = back(original.argmax(-1)), back(changed.argmax(-1))
        labels = np.full(len(first), -1) if data.labels is None else data.labels
        p, q = torch.log_softmax(original.double(), -1), torch.log_softmax(changed.double(), -1)
        rows = [back(divergence(p, q)), first == second, first == labels, second == labels, labels >= 0]
        self._rows.grow(values=np.array(rows, np.float64).T)

    def result(self) -> Quality:
        kl, agree, before, after, labelled = self._rows.joined()["values"].T
        mean, error = mean_and_error(kl)
        share, interval = share_with_interval(agree, len(agree))
        extra: dict[str, Any] = {"agreement": share, "agreement_interval": interval}
        if labelled.all():
            extra["accuracy"], extra["accuracy_interval"] = share_with_interval(after, len(after))
            extra["accuracy_original"] = float(before.mean())
        return Quality(mean, error, len(kl), "nats of KL per item", extra)


class EmbeddingComparison(_Kept):
    """Sentence embeddings (items, width), normalised: cosine distance, and whether similarities keep their order."""

    def add(self, original: torch.Tensor, changed: torch.Tensor, data: Data) -> None:
        self._rows.grow(
            original=back(original.double()), changed=back(changed.double()), tokens=np.array([data.tokens])
        )

    def result(self) -> Quality:
        rows = self._rows.joined()
        first, second = torch.from_numpy(rows["original"]), torch.from_numpy(rows["changed"])
        # Half the squared distance is 1 - cosine without the cancellation, for vectors of length one.
        distance = (0.5 * (first - second).square().sum(-1)).numpy()
        mean, error = mean_and_error(distance)
        extra = {"cosine": 1.0 - mean, "sentences": len(distance), "spearman": _pair_order(first, second)}
        return Quality(mean, error, int(rows["tokens"].sum()), "cosine distance per sentence", extra)


def _pair_order(first: torch.Tensor, second: torch.Tensor) -> float | None:
    """Spearman correlation of the pairwise similarities before and after; None below three sentences."""
    from scipy.stats import spearmanr

    count = min(len(first), MAX_PAIRED)
    if count < 3:
        return None
    pairs = np.triu_indices(count, 1)
    similarities = [(vectors[:count] @ vectors[:count].T).numpy()[pairs] for vectors in (first, second)]
    value = float(spearmanr(*similarities).statistic)
    return value if np.isfinite(value) else None


COMPARISONS: Mapping[str, type[TokenComparison | ClassComparison | EmbeddingComparison]] = {
    "causal-lm": TokenComparison,
    "image-classification": ClassComparison,
    "text-classification": ClassComparison,
    "embedding": EmbeddingComparison,
}
