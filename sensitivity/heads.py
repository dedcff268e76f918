"""What a model's output means, task by task: how it is computed and which directions its curvature is probed along.

For an output distribution p the KL divergence of a small change is half the variance of its score (the Fisher
information; research/08 section 4): KL ~ 1/2 E_y[(g_y . J dW)^2] with g_y = d log p(y) / d output = onehot(y) - p.
A head turns a batch's output into such directions, each a gradient with respect to the output and a weight an item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from bitwright.core.catalog import unknown_name
from bitwright.core.errors import Unsupported
from sensitivity.data import Data
from sensitivity.on_device import here


@dataclass(frozen=True, eq=False)
class Direction:
    """gradient: as the output. weight: float64 (items,), so that loss = 1/2 sum over directions of weight x score^2."""

    gradient: torch.Tensor
    weight: torch.Tensor


class Head(Protocol):
    """loss_unit: of a table made with this head. auto_class: of transformers. default_samples: directions an item."""

    @property
    def loss_unit(self) -> str: ...

    @property
    def auto_class(self) -> str: ...

    @property
    def uses_pooler(self) -> bool: ...

    @property
    def default_samples(self) -> int: ...

    @property
    def label_a_position(self) -> bool:
        """Whether every position has a label of its own, drawn independently of the others."""
        ...

    def output(self, model: torch.nn.Module, data: Data) -> torch.Tensor:
        """float32 output of a batch, items first."""
        ...

    def norm(self, output: torch.Tensor) -> int:
        """What an item's loss is divided by: its positions (language models) or 1."""
        ...

    def count(self, output: torch.Tensor, samples: int) -> int:
        """Directions that `directions` gives."""
        ...

    def directions(
        self, output: torch.Tensor, rows: np.ndarray[Any, Any], samples: int, seed: int
    ) -> Iterator[Direction]:
        """Directions of a batch. rows: the items' numbers; draws depend on (seed, row) only, never on batching."""
        ...

    def observed(self, output: torch.Tensor, data: Data, rows: np.ndarray[Any, Any], seed: int) -> Direction:
        """The gradient of the log-probability of the data's own labels, for metrics of others that use those."""
        ...


def _inputs(data: Data) -> dict[str, torch.Tensor]:
    return {name: here(array) for name, array in data.inputs.items()}


def _generator(seed: int, row: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, row]))


def draw_labels(probabilities: torch.Tensor, uniform: np.ndarray[Any, Any]) -> torch.Tensor:
    """Labels (positions, draws) from probabilities (positions, classes) and uniforms (positions, draws), by inverse
    CDF. Added up on the CPU, in one order: how labels fall does not depend on how a device adds.
    """
    cumulative = probabilities.double().cpu().cumsum(-1)
    point = torch.from_numpy(np.ascontiguousarray(uniform)) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, point, right=True).clamp_(max=probabilities.shape[-1] - 1)
    return drawn.to(probabilities.device)


class _LabelHead:
    """Outputs that are logits. Labels are drawn from the model's own distribution, or enumerated when few."""

    uses_pooler, label_a_position = True, False

    def count(self, output: torch.Tensor, samples: int) -> int:
        return output.shape[-1] if self._enumerates(output, samples) else samples

    def _enumerates(self, output: torch.Tensor, samples: int) -> bool:
        return output.ndim == 2 and output.shape[-1] <= samples

    def directions(
        self, output: torch.Tensor, rows: np.ndarray[Any, Any], samples: int, seed: int
    ) -> Iterator[Direction]:
        logits = output.detach()
        probability = torch.softmax(logits, dim=-1)
        if self._enumerates(output, samples):
            yield from _every_class(probability)
            return
        flat = probability.reshape(len(rows), -1, probability.shape[-1])
        uniforms = np.stack([_generator(seed, int(row)).random((samples, flat.shape[1])) for row in rows])
        labels = torch.stack([draw_labels(flat[item], uniforms[item].T) for item in range(len(rows))])
        weight = torch.full((len(rows),), 1.0 / samples, dtype=torch.float64, device=flat.device)
        one = torch.ones(1, dtype=flat.dtype, device=flat.device).expand(*flat.shape[:2], 1)
        for sample in range(samples):
            gradient = (-flat).scatter_add_(-1, labels[:, :, sample, None], one)
            yield Direction(gradient.reshape(logits.shape), weight)


def _every_class(probability: torch.Tensor) -> Iterator[Direction]:
    """All classes, weighted by their probabilities: the exact expectation over labels, no sampling noise."""
    for label in range(probability.shape[-1]):
        gradient = -probability
        gradient[:, label] += 1.0
        yield Direction(gradient, probability[:, label].double())


class CausalLmHead(_LabelHead):
    """Next-token logits (items, positions, vocabulary). Four label samples: research/08 section 4.1."""

    loss_unit, auto_class, default_samples = "nats of KL per token", "AutoModelForCausalLM", 4
    label_a_position = True

    def output(self, model: torch.nn.Module, data: Data) -> torch.Tensor:
        logits: torch.Tensor = model(**_inputs(data), use_cache=False).logits
        return logits.float()

    def norm(self, output: torch.Tensor) -> int:
        return output.shape[1]

    def observed(self, output: torch.Tensor, data: Data, rows: np.ndarray[Any, Any], seed: int) -> Direction:
        gradient = -torch.softmax(output.detach(), dim=-1)
        targets = here(data.inputs["input_ids"])[:, 1:, None]
        gradient[:, :-1].scatter_add_(-1, targets, torch.ones_like(targets, dtype=gradient.dtype))
        gradient[:, -1] = 0
        return Direction(gradient, torch.ones(len(rows), dtype=torch.float64, device=gradient.device))


class ClassifierHead(_LabelHead):
    """Class logits (items, classes). Up to 64 classes are enumerated; 64 samples otherwise (research/08 section 2e)."""

    loss_unit, default_samples = "nats of KL per item", 64

    def __init__(self, auto_class: str) -> None:
        self.auto_class = auto_class

    def output(self, model: torch.nn.Module, data: Data) -> torch.Tensor:
        logits: torch.Tensor = model(**_inputs(data)).logits
        return logits.float()

    def norm(self, output: torch.Tensor) -> int:
        return 1

    def observed(self, output: torch.Tensor, data: Data, rows: np.ndarray[Any, Any], seed: int) -> Direction:
        logits = output.detach()
        labels = logits.argmax(-1) if data.labels is None else here(data.labels)
        gradient = torch.nn.functional.one_hot(labels, logits.shape[-1]) - torch.softmax(logits, dim=-1)
        return Direction(gradient, torch.ones(len(rows), dtype=torch.float64, device=gradient.device))


class EmbeddingHead:
    """Mean-pooled, normalised sentence embeddings z (items, width), as sentence-transformers makes them for MiniLM.

    The output counts as a Gaussian of unit variance around z, whose score along a noise vector e is e . J dW, so the
    loss 1/2 E||J dW||^2 is the expected cosine distance 1 - z.z' = 1/2 ||z - z'||^2. The noise vectors of an item are
    orthogonal (a random frame scaled by sqrt(width)): unbiased like independent ones, with less variance, and exact
    once there are `width` of them.
    """

    loss_unit, auto_class, uses_pooler, default_samples = "cosine distance per sentence", "AutoModel", False, 4
    label_a_position = False

    def output(self, model: torch.nn.Module, data: Data) -> torch.Tensor:
        inputs = _inputs(data)
        hidden = model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][..., None].float()
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, dim=-1)

    def norm(self, output: torch.Tensor) -> int:
        return 1

    def count(self, output: torch.Tensor, samples: int) -> int:
        return min(samples, output.shape[-1])

    def directions(
        self, output: torch.Tensor, rows: np.ndarray[Any, Any], samples: int, seed: int
    ) -> Iterator[Direction]:
        width = output.shape[-1]
        samples = self.count(output, samples)
        frames = []
        for row in rows:
            frame, triangle = np.linalg.qr(_generator(seed, int(row)).standard_normal((width, samples)))
            frames.append(frame * np.sign(np.diagonal(triangle)) * np.sqrt(width))
        noise = here(np.stack(frames)).to(output.dtype)
        weight = torch.full((len(rows),), 1.0 / samples, dtype=torch.float64, device=noise.device)
        for sample in range(samples):
            yield Direction(noise[:, :, sample].contiguous(), weight)

    def observed(self, output: torch.Tensor, data: Data, rows: np.ndarray[Any, Any], seed: int) -> Direction:
        """Embeddings have no labels: one noise direction stands in."""
        return next(self.directions(output, rows, 1, seed))


HEADS: dict[str, Head] = {
    "causal-lm": CausalLmHead(),
    "image-classification": ClassifierHead("AutoModelForImageClassification"),
    "text-classification": ClassifierHead("AutoModelForSequenceClassification"),
    "embedding": EmbeddingHead(),
}


def head_for(task: str) -> Head:
    """The head of an inventory's task. Raises Unsupported for `unknown`."""
    if task == "unknown":
        raise Unsupported(
            "what this model puts out is not known, so it cannot be measured",
            expected=f"a model for one of: {', '.join(HEADS)}",
            got="an architecture of unknown task",
            hint="use a metric without data (--metric weight-mse)",
        )
    if task not in HEADS:
        raise unknown_name("task", task, tuple(HEADS))
    return HEADS[task]
