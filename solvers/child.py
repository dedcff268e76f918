"""Libraries that do not keep the clock run in a process of their own, which is killed when it oversteps.

One warm process a library (importing them costs a second), started on first use, ended after a minute without work, at
the end of this program, or when this program dies. Requests and replies are arrays in `.npz`, never pickles. Separate
processes are also needed because highspy and OR-tools' MathOpt cannot be loaded into one (research/05 section 7).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import JobFailed
from bitwright.core.npz import read_npz

Arrays = Mapping[str, NDArray[Any]]
#: Seconds without work after which a process ends itself, and between looks at whether its parent still lives.
IDLE, WATCH = 60.0, 1.0
_HEAD = struct.Struct("<Q")


class Child:
    """The process that serves `target` ("module:function", arrays -> arrays). One call at a time."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False

    def call(self, arrays: Arrays, end: float) -> dict[str, NDArray[Any]] | None:
        """The reply, or None when it did not come before `end` (monotonic): the process is then killed.

        Another thread's call is waited for until `end` as well. Raises JobFailed when the library fails or its process
        dies.
        """
        if not self.lock.acquire(timeout=max(0.0, end - time.monotonic())):
            return None
        try:
            for fresh in (False, True):
                if fresh or self.process is None or self.process.poll() is not None:
                    self._start()
                try:
                    if not self.ready:
                        if self._read(end) is None:
                            return None  # still importing: it may be ready for the next call
                        self.ready = True
                    request = _packed(arrays, lambda: time.monotonic() >= end)
                    if request is None:
                        return None  # nothing was asked: it waits for the next call
                    reply = self._read(end) if self._send(request, end) else None
                except (BrokenPipeError, EOFError):
                    if fresh:
                        raise JobFailed(
                            "the process of a solver library ended without an answer",
                            got=f"{self.target}, exit code {self.close()}", hint="use another solver",
                        ) from None  # fmt: skip
                    continue  # it ended while idle
                if reply is None:
                    self.close()
                    return None
                if "error" in reply:
                    raise JobFailed("a solver library failed", got=f"{self.target}: {reply['error'].item()}"[:300])
                return reply
        finally:
            self.lock.release()
        raise AssertionError("unreachable")

    def _start(self) -> None:
        self.close()
        home = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "solvers.child", self.target, str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, bufsize=0,
            start_new_session=True,
        )  # fmt: skip
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)
        self.ready = False

    def _send(self, request: memoryview, end: float) -> bool:
        """One frame; False past `end`. A process that is not given the CPU takes nothing out of a full pipe."""
        assert self.process is not None
        assert self.process.stdin is not None
        file = self.process.stdin.fileno()
        for view in (memoryview(_HEAD.pack(len(request))), request):
            while view:
                if not select.select([], [file], [], max(0.0, end - time.monotonic()))[1]:
                    return False
                view = view[os.write(file, view) :]
        return True

    def _read(self, end: float) -> dict[str, NDArray[Any]] | None:
        """One frame; None past `end`; EOFError when the process is gone."""
        assert self.process is not None
        assert self.process.stdout is not None
        file, data, wanted = self.process.stdout.fileno(), bytearray(), _HEAD.size
        while len(data) < wanted:
            if not select.select([file], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            piece = os.read(file, 1 << 20)
            if not piece:
                raise EOFError
            data += piece
            if len(data) >= _HEAD.size:
                wanted = _HEAD.size + _HEAD.unpack_from(data)[0]
        return read_npz(io.BytesIO(bytes(data[_HEAD.size :])))

    def close(self) -> int | None:
        """Kill the process, if it is ours; its exit code."""
        process, self.process = self.process, None
        if process is None or self.owner != os.getpid():
            return None
        code = process.poll()
        with contextlib.suppress(ProcessLookupError):  # its group: programs that it runs end with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return code


_CHILDREN: dict[tuple[int, str], Child] = {}
_GUARD = threading.Lock()


def call(target: str, arrays: Arrays, end: float) -> dict[str, NDArray[Any]] | None:
    """`Child.call` on this program's process of that library."""
    with _GUARD:
        child = _CHILDREN.setdefault((os.getpid(), target), Child(target))
    return child.call(arrays, end)


@atexit.register
def close_all() -> None:
    """End every process that this program started."""
    for child in list(_CHILDREN.values()):
        child.close()


def _packed(arrays: Arrays, late: Callable[[], bool] = lambda: False) -> memoryview | None:
    """The `.npz`; None where it is late, asked before each array (a large one takes milliseconds)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        for name, array in arrays.items():
            if late():
                return None
            with members.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return file.getbuffer()


# --- in the child -----------------------------------------------------------------------------------------------------


def _serve(function: Callable[[Arrays], Arrays], replies: int) -> None:
    _write(replies, {"ready": np.zeros(1)})
    while select.select([0], [], [], IDLE)[0]:
        head = _exactly(_HEAD.size)
        if head is None:
            return
        data = _exactly(_HEAD.unpack(head)[0])
        if data is None:
            return
        try:
            reply = function(read_npz(io.BytesIO(data)))
        except Exception as error:  # told to the parent, which raises it
            reply = {"error": np.array(f"{type(error).__name__}: {error}"[:300] or "error")}
        _write(replies, reply)


def _write(file: int, arrays: Arrays) -> None:
    data = _packed(arrays)
    assert data is not None
    for view in (memoryview(_HEAD.pack(len(data))), data):
        while view:
            view = view[os.write(file, view) :]


def _exactly(count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)


def main(target: str, parent: str) -> None:
    """Serve requests on standard input; whatever the library prints goes nowhere."""
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()
    replies = os.dup(1)
    os.dup2(2, 1)
    module, _, name = target.partition(":")
    with contextlib.suppress(BrokenPipeError):
        _serve(getattr(importlib.import_module(module), name), replies)


if __name__ == "__main__":
    main(*sys.argv[1:])
