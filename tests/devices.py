"""Running code on the tests' second device (tests/second_device), in a process of its own, or a plain one beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gpu_kernels.build import compiler

ROOT = Path(__file__).resolve().parents[1]
SECOND = "second"
#: Why a test that needs the second device cannot run.
NO_COMPILER = "the second device is compiled, and there is no C++ compiler here"
POSSIBLE = compiler() is not None


def environment(device: str, **more: str) -> dict[str, str]:
    """The environment of a process that computes on `device`, which may be the second one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BITWRIGHT_")}
    # torch takes a device from outside for the accelerator of the whole process: beside a GPU it must not be there.
    second = [] if device.startswith("cuda") else [str(ROOT / "tests" / "second_device")]
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), *second]), "BITWRIGHT_DEVICE": device, **more}


def run(code: str, device: str = SECOND, *, timeout: float = 240, **more: str) -> subprocess.CompletedProcess[str]:
    """Python code in a fresh process that computes on `device`."""
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True, timeout=timeout,
        check=False, env=environment(device, **more), cwd=ROOT,
    )  # fmt: skip


def output(code: str, device: str = SECOND, **more: str) -> str:
    """What the code prints; it must end well."""
    done = run(code, device, **more)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
