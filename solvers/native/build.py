"""Compile the native solver library: `python -m solvers.native.build`. One plain C library."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bitwright.core.errors import OutOfResources, Unsupported
from solvers.native.place import FLAGS, HERE, library_path

SOURCE = HERE / "hull.cpp"


def build() -> Path:
    """The library's path, compiled when needed. Raises Unsupported without a C++ compiler."""
    target = library_path()
    if target.is_file():
        return target
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        raise Unsupported("there is no C++ compiler", hint="install g++; without it the solvers use numpy")
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        made = Path(folder) / target.name
        done = subprocess.run([compiler, *FLAGS, "-o", str(made), str(SOURCE)], capture_output=True, text=True)
        if done.returncode != 0:
            raise OutOfResources("the native library does not compile", got=done.stderr[-400:], hint=compiler)
        made.replace(target)
    for old in HERE.glob("libbitwright_solvers*.so"):
        if old != target:
            old.unlink(missing_ok=True)
    return target


if __name__ == "__main__":
    print(f"native solvers: {build().name}")
