"""Compile the native solver library: `python -m solvers.native.build`. One plain C library."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bitwright.core.errors import OutOfResources, Unsupported
from solvers.native.place import FLAGS, HERE, library_path

#: Translation units, compiled at the same time.
SOURCES = (HERE / "hull.cpp", HERE / "frontier.cpp")


def build() -> Path:
    """The library's path, compiled when needed. Raises Unsupported without a C++ compiler."""
    target = library_path()
    if target.is_file():
        return target
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        raise Unsupported("there is no C++ compiler", hint="install g++; without it the solvers use numpy")
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        objects = [str(Path(folder) / f"{source.stem}.o") for source in SOURCES]
        units = [["-c", str(source), "-o", made] for source, made in zip(SOURCES, objects, strict=True)]
        with ThreadPoolExecutor(len(units)) as pool:
            list(pool.map(lambda unit: _run([compiler, *FLAGS, *unit]), units))
        made = Path(folder) / target.name
        _run([compiler, *FLAGS, "-shared", "-o", str(made), *objects])
        made.replace(target)
    for old in HERE.glob("libbitwright_solvers*.so"):
        if old != target:
            old.unlink(missing_ok=True)
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise OutOfResources("the native library does not compile", got=done.stderr[-400:], hint=command[0])


if __name__ == "__main__":
    print(f"native solvers: {build().name}")
