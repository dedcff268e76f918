"""Compile the native kernels: `python -m gpu_kernels.build`.

A plain shared library with a C interface, loaded with ctypes: no Python headers, one file for every Python. Its name
carries a hash of the sources and flags, so an outdated build is never loaded. Without a compiler nothing is built, and
the numpy reference does the work (with the same bytes).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bitwright.core.errors import JobFailed

SOURCES = Path(__file__).parent / "native"
OUTPUT = SOURCES / "build"
#: Fixed float order: no contraction to fused multiply-add, no fast-math. Never -march=native.
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-ffp-contract=off", "-fvisibility=default", "-Wall", "-Wextra", "-Wno-psabi")
#: Translation units and what each may use beyond the baseline.
_AVX2 = ("-mavx2", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni", "-mprefer-vector-width=256")
UNITS = {
    "cpu_avx512.cpp": _AVX512, "cpu_avx2.cpp": _AVX2, "cpu_scalar.cpp": (), "cpu_twin.cpp": (), "cpu.cpp": (),
    "gptq.cpp": (),
}  # fmt: skip
TIMEOUT_S = 300


def library_path() -> Path:
    """Where the library of exactly these sources lies or would lie."""
    digest = hashlib.sha256(repr((FLAGS, UNITS, platform.machine())).encode())
    for source in sorted(SOURCES.glob("*.*")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return OUTPUT / f"libbitwright_cpu-{digest.hexdigest()[:16]}.so"


def compiler() -> str | None:
    """The C++ compiler: $CXX, or the first of c++, g++, clang++."""
    named = os.environ.get("CXX")
    for name in [named] if named else ["c++", "g++", "clang++"]:
        found = shutil.which(name)
        if found:
            return found
    return None


def build(*, force: bool = False) -> Path | None:
    """The path of the built library, compiled when needed; None without a compiler. Raises JobFailed."""
    target = library_path()
    if target.is_file() and not force:
        return target
    cxx = compiler()
    if cxx is None:
        return None
    OUTPUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUTPUT) as folder:
        objects = [str(Path(folder) / f"{unit}.o") for unit in UNITS]
        x86 = platform.machine() in ("x86_64", "AMD64")
        commands = [
            [cxx, *FLAGS, *(extra if x86 else ()), "-c", str(SOURCES / unit), "-o", made]
            for (unit, extra), made in zip(UNITS.items(), objects, strict=True)
        ]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_run, commands))
        made = Path(folder) / target.name
        _run([cxx, "-shared", *objects, "-o", str(made)])
        made.replace(target)
    for old in OUTPUT.glob("libbitwright_cpu-*.so"):
        if old != target:
            old.unlink(missing_ok=True)
    return target


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JobFailed("the native kernels could not be compiled", got=str(error)[:300]) from error
    if done.returncode != 0:
        raise JobFailed(
            "the native kernels could not be compiled",
            got=done.stderr.strip()[-600:],
            hint="use g++ >= 10 or clang++ >= 12, or go on without: the numpy kernels give the same bytes",
        )


def main() -> int:
    """Build and say what came of it; a missing or failing compiler is no failure of the installation."""
    try:
        path = build()
    except JobFailed as error:
        print(f"native kernels: not built, numpy does the work\n{error}", file=sys.stderr)
        return 0
    print("native kernels: " + ("no C++ compiler found, numpy does the work" if path is None else path.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
