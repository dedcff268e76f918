"""Compile the native solver library: `python -m solvers.native.build [FOLDER]`. One plain C library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bitwright.core.errors import OutOfResources, Unsupported

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "hull.cpp"
NAME = "libbitwright_solvers.so"
#: No contraction into fused multiply-adds: the compiled code must round as the numpy oracle does.
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-pthread")


def build(out_dir: Path = HERE) -> Path:
    """Compile into `out_dir` and return the library's path. Raises Unsupported without a C++ compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        raise Unsupported("there is no C++ compiler", hint="install g++; without it the solvers use numpy")
    out_dir.mkdir(parents=True, exist_ok=True)
    target = out_dir / NAME
    with tempfile.TemporaryDirectory(dir=out_dir) as folder:
        made = Path(folder) / NAME
        done = subprocess.run([compiler, *FLAGS, "-o", str(made), str(SOURCE)], capture_output=True, text=True)
        if done.returncode != 0:
            raise OutOfResources("the native library does not compile", got=done.stderr[-400:], hint=compiler)
        made.replace(target)
    return target


if __name__ == "__main__":
    print(build(*map(Path, sys.argv[1:2])))
