"""The device `second` of tests (see second.cpp), compiled once and loaded by torch itself.

A process that has this folder on PYTHONPATH has the device: torch loads what the entry points of `torch.backends` name
(docs.pytorch.org, "Autoloading Out-of-Tree Extension"). So the command line, its children and scripts need no change.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import subprocess
import types
from pathlib import Path

HERE = Path(__file__).parent
NAME = "second"


def build() -> Path:
    """The library for the installed torch, compiled when the sources or torch changed; about ten seconds."""
    import torch

    source, root = HERE / "second.cpp", Path(torch.__file__).parent
    told = hashlib.sha256(source.read_bytes() + torch.__version__.encode() + str(root).encode()).hexdigest()[:16]
    target = HERE / "build" / f"libsecond-{told}.so"
    target.parent.mkdir(exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_file():
            made = target.with_suffix(".part")
            include = root / "include"
            command = [
                os.environ.get("CXX", "c++"), "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{include}",
                f"-I{include / 'torch/csrc/api/include'}", f"-L{root / 'lib'}", str(source), "-o", str(made),
                "-ltorch", "-ltorch_cpu", "-lc10",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
            made.replace(target)
    return target


def load() -> None:
    """Called by torch at the end of its import."""
    import torch

    torch.ops.load_library(str(build()))
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(NAME)
    module.__dict__.update(
        is_available=lambda: True, device_count=lambda: 1, current_device=lambda: 0, _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None, get_amp_supported_dtype=lambda: [], get_device_name=lambda device: "test",
    )  # fmt: skip
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()


def peak() -> int:
    """Most bytes that the device held at once."""
    library = ctypes.CDLL(str(build()))
    library.second_device_peak.restype = ctypes.c_size_t
    return int(library.second_device_peak())
