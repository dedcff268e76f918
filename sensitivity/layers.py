"""One planned layer in use, and what metrics that look at one at a time share, in memory and block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from bitwright.core.errors import NotFinite
from sensitivity.heads import Head
from sensitivity.moments import Moments
from sensitivity.on_device import all_finite


class Errors(Protocol):
    """float32 (out, in) quantization errors, one a format: a stacked tensor, or made when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, column: int, /) -> torch.Tensor: ...


@dataclass(frozen=True, eq=False)
class Layer:
    """One planned unit in one use of its layer. inputs: (items, positions, in); errors: (out, in), one a format.

    gradients: one (items, positions, out) a direction; weights: float64 (directions, items). output: (items, positions,
    out) of the unquantized layer, its bias included.
    """

    inputs: torch.Tensor
    errors: Errors
    gradients: tuple[torch.Tensor, ...]
    weights: torch.Tensor
    output: torch.Tensor

    def output_error(self, column: int) -> torch.Tensor:
        """(items, positions, out): what quantizing in format `column` does to the layer's own output."""
        return self.inputs @ self.errors[column].T


#: (layer) -> float64 (items, columns)
Cells = Callable[[Layer], torch.Tensor]


@dataclass(frozen=True)
class Passes:
    """directions: `drawn` from the model's own output, `observed` (labels of the data), or `none` (forward only)."""

    directions: str
    columns_a_format: int = 1


@dataclass(frozen=True, eq=False)
class Ran:
    """What was run. positions: tokens that went in, over all items; norm: what sums over all items are divided by."""

    head: Head
    warnings: tuple[str, ...]
    directions: int
    positions: int = 0
    norm: int = 0
    streamed: bool = False


@dataclass(frozen=True, eq=False)
class Measured:
    ran: Ran
    moments: Moments


def check_finite(values: torch.Tensor) -> None:
    if not all_finite(values):
        raise NotFinite("scoring gave NaN or infinity", hint="the model overflows on this calibration data")
