"""The heavy arithmetic of quantizers, where gpu_kernels.compute says: on the CPU, or on another device of torch.

GPTQ's factor and sweep, the search of ranges, and products with moments of inputs are the same functions with the same
meaning on both. On the CPU numpy and native code do them, and those lines are the definition. A device does all rows,
groups and candidates at once and adds its sums in another order. What is promised there: the sweep's codes are the
CPU's, but for weights within float64 rounding of the middle between two steps, and its output error is the same to
1e-6; a searched scale is the CPU's or its float16 neighbour, but where two weighed errors agree to float32 rounding,
and the error that was searched for is the same to 1e-3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import IntFormat
from gpu_kernels.compute import accelerator
from quantizers import hessian, range_search
from quantizers import sweep as sweeps
from quantizers.base import Float32Matrix
from quantizers.blas import ready
from quantizers.range_search import Found, Spans, Weighing
from quantizers.sweep import Float64, Grid

#: U of H^-1 = U'U, where the arithmetic keeps it.
Upper = Any


class Rest(Protocol):
    """See sweep.Rest."""

    def columns(self, first: int, last: int) -> Float64: ...

    def passed(self, first: int, last: int, rounded: Float64) -> None: ...


class Arithmetic(Protocol):
    """What the CPU and a device can both do. Arrays come and go as numpy's; U stays where it was made."""

    def factor(self, definite: Float64) -> Upper | None:
        """See sweep.factor: H is given away."""
        ...

    def diagonal(self, upper: Upper) -> Float64:
        """(in,) U_jj."""
        ...

    def sweep(
        self, weight: NDArray[np.floating[Any]], order: NDArray[np.intp], upper: Upper, cuts: Sequence[int], grid: Grid,
        losses: Float64 | None = None,
    ) -> NDArray[np.uint8]:  # fmt: skip
        """See sweep.sweep."""
        ...

    def rest(self, weight: Float32Matrix, upper: Upper) -> Rest:
        """See sweep.Rest."""
        ...

    def search(
        self, weight: Float32Matrix, spans: Spans, format: IntFormat, weighing: Weighing, ratios: Sequence[float],
        name: str,
    ) -> Found:  # fmt: skip
        """See range_search.search."""
        ...

    def power_errors(
        self, group: Float32Matrix, counts: Float32Matrix, scales: NDArray[Any], zeros: NDArray[np.uint8], top: int,
        power: float,
    ) -> Float64:  # fmt: skip
        """See range_search.power_errors."""
        ...

    def column_costs(self, definite: Float64) -> Float64:
        """See hessian.column_costs."""
        ...

    def product(self, rows: NDArray[np.floating[Any]], moments: Float64) -> Float64:
        """rows @ moments in float64."""
        ...


class Cpu:
    """The definition."""

    factor = staticmethod(sweeps.factor)
    sweep = staticmethod(sweeps.sweep)
    rest = staticmethod(sweeps.Rest)
    search = staticmethod(range_search.search)
    power_errors = staticmethod(range_search.power_errors)
    column_costs = staticmethod(hessian.column_costs)

    def diagonal(self, upper: Float64) -> Float64:
        return np.diag(upper)

    def product(self, rows: NDArray[np.floating[Any]], moments: Float64) -> Float64:
        found: Float64 = rows.astype(np.float64, copy=False) @ moments
        return found


CPU = Cpu()


def arithmetic() -> Arithmetic:
    """The arithmetic of the device that the settings choose. Raises InvalidSetting, OutOfResources."""
    device = accelerator()
    ready()
    return CPU if device is None else _on(device)


@lru_cache(maxsize=8)
def _on(device: Any) -> Arithmetic:
    from quantizers.on_device import OnDevice

    return OnDevice(device)
