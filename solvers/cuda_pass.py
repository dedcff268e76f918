"""The visit of torch_visit as one kernel: on a CUDA device it reads the table once, torch's operations about ten times.
And what torch_bracket spends at 32 multipliers as another.

NVRTC compiles native/table_pass.cu when it is first needed, a fifth of a second for each number of formats and type.
It needs cuda.core and NVRTC (`pip install bitwright[cuda]`); without them torch's operations do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from bitwright.core.errors import JobFailed
from gpu_kernels.cuda import find_compiler
from solvers.native.place import HERE

THREADS = 256
#: Blocks of threads for each multiprocessor: enough loads under way to fill the memory's latency.
BLOCKS = 8
_REAL = {torch.float32: "float", torch.float64: "double"}
_WHOLE = {torch.int32: "int", torch.int64: "long long"}
#: Most formats: a row lies in registers.
MOST = 64
#: Multipliers at once: one for each lane of a warp.
LANES = 32


def takes(loss: torch.Tensor, size: torch.Tensor) -> bool:
    """Whether the kernel can visit this table here."""
    fits = loss.dtype in _REAL and size.dtype in _WHOLE and loss.shape[1] <= MOST and loss.is_contiguous()
    return fits and loss.is_cuda and torch.version.cuda is not None and _compiler_there()


def visit(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, price: torch.Tensor, need: torch.Tensor
) -> tuple[torch.Tensor, int, float, torch.Tensor]:
    """(choice, cost and loss of the settled rows, the other rows in order); see torch_visit.fused_pass.

    price: (k,) cost of a unit of size, in losses. need: (k, k) [x, j]. Raises JobFailed when NVRTC cannot compile.
    """
    (n, _), device = loss.shape, loss.device
    with _launcher("visit", loss, size) as (start, blocks):
        choice = torch.empty(n, dtype=torch.uint8, device=device)
        costs = torch.empty(blocks, dtype=torch.int64, device=device)
        losses = torch.empty(blocks, dtype=torch.float64, device=device)
        room = min(n, max(1 << 16, n >> 5))
        while True:
            rest = torch.empty(room, dtype=torch.int64, device=device)
            count = torch.zeros(1, dtype=torch.int64, device=device)
            start(loss, size, size.stride(0), price, need, rate, n, choice, rest, count, room, costs, losses)
            # One wait for all three: the bits of the loss go as an integer.
            sums = torch.cat([count, costs.sum()[None], losses.sum()[None].view(torch.int64)]).cpu()
            found, cost, loss_of_them = int(sums[0]), int(sums[1]), float(sums[2:].view(torch.float64))
            if found <= room:
                return choice, cost, loss_of_them, rest[:found].sort().values
            room = found


def spend(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, prices: torch.Tensor) -> torch.Tensor:
    """(multipliers,) int64: what is spent at each; see torch_bracket.spent.

    prices: (multipliers, k) cost of a unit of size, in losses, at most LANES of them. Raises JobFailed when NVRTC
    cannot compile.
    """
    count = len(prices)
    prices = torch.cat([prices, prices[-1:].expand(LANES - count, -1)]).contiguous()
    found = torch.zeros(LANES, dtype=torch.int64, device=loss.device)
    with _launcher("spend", loss, size) as (start, _):
        start(loss, size, size.stride(0), prices, rate, len(loss), found)
    return found[:count]


@contextmanager
def _launcher(name: str, loss: torch.Tensor, size: torch.Tensor) -> Iterator[tuple[Callable[..., None], int]]:
    """What starts a kernel on torch's stream of the table's device, tensors as their addresses; its blocks."""
    from cuda.core import LEGACY_DEFAULT_STREAM, Device, LaunchConfig, Stream, launch  # type: ignore[import-not-found]

    device, k = loss.device, loss.shape[1]
    handle = torch.cuda.current_stream(device).cuda_stream
    at_once = 16 // loss.element_size()
    aligned = k % at_once == 0 and loss.data_ptr() % 16 == 0
    with torch.cuda.device(device):
        there = Device(device.index)
        there.set_current()
        major, minor = there.compute_capability
        kernel = _kernels(
            major * 10 + minor, k, _REAL[loss.dtype], _WHOLE[size.dtype], at_once if aligned else 1
        )[name]  # fmt: skip
        stream = Stream.from_handle(handle) if handle else LEGACY_DEFAULT_STREAM
        blocks = BLOCKS * torch.cuda.get_device_properties(device).multi_processor_count

        def start(*given: torch.Tensor | int) -> None:
            told = (one.data_ptr() if isinstance(one, torch.Tensor) else one for one in given)
            launch(stream, LaunchConfig(grid=blocks, block=THREADS), kernel, *told)

        yield start, blocks


@lru_cache(maxsize=1)
def _compiler_there() -> bool:
    compiler = find_compiler()
    return compiler is not None and compiler.path is None


@lru_cache(maxsize=64)
def _kernels(arch: int, formats: int, real: str, whole: str, line: int) -> dict[str, Any]:
    from cuda.core import Program, ProgramOptions

    given = {"K": formats, "REAL": real, "WHOLE": whole, "LINE": line, "THREADS": THREADS}
    options = ProgramOptions(
        arch=f"sm_{arch}", std="c++17", fma=False, define_macro=[(name, str(value)) for name, value in given.items()]
    )
    source = (HERE / "table_pass.cu").read_text(encoding="utf-8")
    try:
        compiled = Program(source, "c++", options).compile("cubin")
        return {name: compiled.get_kernel(name) for name in ("visit", "spend")}
    except Exception as error:  # cuda.core's own errors derive from Exception only
        raise JobFailed("the pass over a table could not be compiled for this GPU", got=str(error)[-600:]) from error
