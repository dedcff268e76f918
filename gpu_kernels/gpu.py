"""Running the GPU kernels on a GPU, over device memory or over numpy arrays copied there and back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput, JobFailed, OutOfResources, Unsupported
from gpu_kernels.cuda import NAMES, THREADS, UNIT, Arguments, cubin, find_compiler, kernel_name, rtn_takes, width_only


class Gpu:
    """The kernels on the current device; those of a width are compiled when first used.

    Raises Unsupported without cuda.core, a driver or a device.
    """

    def __init__(self) -> None:
        compiler = find_compiler()
        if compiler is None or compiler.path is not None:
            raise Unsupported("the GPU kernels need cuda.core", hint="pip install bitwright[cuda]")
        from cuda.core import Device  # type: ignore[import-not-found]

        try:
            device = Device()
            device.set_current()
            major, minor = device.compute_capability
            self.name = str(device.name)
            self.stream = device.create_stream()
        except Exception as error:  # cuda.core's own errors derive from Exception only
            raise Unsupported("there is no usable GPU", got=f"{type(error).__name__}: {error}"[:200]) from error
        self.arch, self.compiler = int(major) * 10 + int(minor), compiler
        self._code: dict[int, Any] = {}
        self._kernels: dict[str, Any] = {}

    def load(self, bits: int) -> None:
        """Compile the kernels of a width, or take them from the cache. Raises JobFailed."""
        from cuda.core import ObjectCode

        if bits not in self._code:
            made = cubin(self.arch, self.compiler, defines=width_only(bits))
            self._code[bits] = ObjectCode.from_cubin(made)

    def launch(self, kind: str, dtype: str, bits: int, arguments: Arguments) -> None:
        """Start one kernel over device memory on `self.stream`. Raises InvalidInput for what it does not take."""
        from cuda.core import LaunchConfig, launch

        if kind == "rtn" and not fused_takes(arguments):
            raise InvalidInput(
                "the fused kernel does not take this matrix",
                expected="groups of 32, 64, ... 4096 that divide the columns, fewer than 2^36 weights, and an address "
                "divisible by 16",
                got=f"{arguments.rows} rows of {arguments.columns}, groups of {arguments.group}, "
                f"address {arguments.x or 0:#x}",
            )
        if arguments.blocks == 0:
            return
        name = kernel_name(kind, dtype, bits)
        if name not in self._kernels:
            self.load(bits)
            self._kernels[name] = self._code[bits].get_kernel(name)
        values = [int(getattr(arguments, field) or 0) for field in NAMES]
        config = LaunchConfig(grid=arguments.blocks, block=THREADS)
        launch(self.stream, config, self._kernels[name], *values)

    def run(
        self, kind: str, dtype: str, bits: int, rows: int, columns: int, group: int, symmetric: int,
        **arrays: NDArray[Any] | None,
    ) -> None:  # fmt: skip
        """One kernel over numpy arrays, which are copied to the device and, once it is done, back."""
        with ExitStack() as stack:
            held = {}
            for name, array in arrays.items():
                if array is not None:
                    held[name] = Memory(array.nbytes)
                    stack.callback(held[name].free)
                    held[name].write(array)
            pointers = {name: memory.address for name, memory in held.items()}
            self.launch(
                kind, dtype, bits, Arguments(**pointers, rows=rows, columns=columns, group=group, symmetric=symmetric)
            )
            self.stream.sync()
            for name, memory in held.items():
                memory.read(arrays[name])

    def milliseconds(self, steps: list[Callable[[], None]]) -> list[float]:
        """Time on the device of each step that puts work on `self.stream`, one after the other."""
        from cuda.bindings import driver  # type: ignore[import-not-found]

        stream = driver.CUstream(int(self.stream.handle))
        events = [asked(driver.cuEventCreate(0)) for _ in range(len(steps) + 1)]
        for event, step in zip(events, [*steps, None], strict=True):
            asked(driver.cuEventRecord(event, stream))
            if step is not None:
                step()
        self.stream.sync()
        times = [asked(driver.cuEventElapsedTime(*pair)) for pair in pairwise(events)]
        for event in events:
            asked(driver.cuEventDestroy(event))
        return [float(time) for time in times]


def fused_takes(arguments: Arguments) -> bool:
    """Whether the matrix is one run of whole groups (bw_is_whole in gpu.h), none of which crosses a block."""
    few = arguments.rows * arguments.columns < UNIT << 31
    return few and rtn_takes(arguments.columns, arguments.group) and (arguments.x or 0) % 16 == 0


class Memory:
    """Bytes on the device; freed with `free` or at the end of the process."""

    def __init__(self, size: int) -> None:
        from cuda.bindings import driver

        self.size = size
        try:
            self._held = asked(driver.cuMemAlloc(max(size, 1)))
        except JobFailed as error:
            raise OutOfResources("the GPU has no room for this array", got=f"{size} bytes, {error.got}") from error
        self.address = int(self._held)

    def write(self, array: NDArray[Any] | None, at: int = 0) -> None:
        from cuda.bindings import driver

        dense = np.ascontiguousarray(array)
        asked(driver.cuMemcpyHtoD(self.address + at, dense.ctypes.data, dense.nbytes))
        asked(driver.cuCtxSynchronize())  # what came from pageable memory may still be on its way

    def read(self, into: NDArray[Any] | None) -> None:
        from cuda.bindings import driver

        if into is None or not into.flags.c_contiguous:
            raise InvalidInput("only a contiguous array can take what a GPU holds")
        asked(driver.cuMemcpyDtoH(into.ctypes.data, self._held, into.nbytes))

    def free(self) -> None:
        from cuda.bindings import driver

        asked(driver.cuMemFree(self._held))


def asked(answer: tuple[Any, ...]) -> Any:
    """What a call of the driver gave. Raises JobFailed with the driver's word for what went wrong."""
    if int(answer[0]) != 0:
        raise JobFailed("the GPU driver refused", got=str(answer[0]))
    return answer[1] if len(answer) > 1 else None
