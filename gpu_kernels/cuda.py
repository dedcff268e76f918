"""The GPU kernels: compiled for a compute capability by NVRTC (cuda.core) or nvcc, kept as cubins (gpu.py runs them).

Neither compiling nor the CPU twin needs a GPU. A cubin in the cache carries its own SHA-256: a damaged one is compiled
again, never loaded. The arithmetic is core.h's, the same as on the CPU: no fused multiply-add, no fast division.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bitwright.core.errors import JobFailed, Unsupported
from gpu_kernels.build import SOURCES, TIMEOUT_S

#: Threads of a block, as gpu.h has it, and codes of a thread.
THREADS, UNIT = 128, 32
KINDS = ("quantize", "rtn", "dequantize")
TYPES = ("f32", "f16", "bf16")
FILES = (
    "core.h",
    "gpu_words.h",
    "gpu.h",
    "gpu_quantize.h",
    "gpu_rtn.h",
    "gpu_one_bit.h",
    "gpu_dequantize.h",
    "kernels.cu",
)
OPTIONS = ("-std=c++17", "-fmad=false", "-prec-div=true", "-ftz=false")


#: Arguments of every kernel: eight pointers, four numbers.
NAMES = (
    "x", "words", "inverse", "zero", "scales", "zeros", "dense", "status", "rows", "columns", "group", "symmetric",
)  # fmt: skip


class Arguments(ctypes.Structure):
    """Pointers (on the device, or in memory for the twin) and sizes; see bw_args in gpu.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in NAMES[:8]),
        *((name, ctypes.c_int64) for name in NAMES[8:]),
    )

    @property
    def blocks(self) -> int:
        """Blocks of threads that cover the matrix."""
        units = self.rows * -(-self.columns // UNIT)
        return int(-(-units // THREADS))


def kernel_name(kind: str, dtype: str, bits: int) -> str:
    """Name of an entry point of kernels.cu."""
    return f"bw_dequantize_b{bits}" if kind == "dequantize" else f"bw_{kind}_{dtype}_b{bits}"


def width_only(bits: int) -> tuple[str, ...]:
    """What kernels.cu is compiled with for the kernels of one width."""
    return (f"BW_ONLY={bits}",)


def rtn_takes(columns: int, group: int) -> bool:
    """Whether the fused kernel takes this group size: no group may cross a block of threads."""
    fits = group % UNIT == 0 and group <= UNIT * THREADS and (group & (group - 1)) == 0
    return fits and columns % group == 0


@dataclass(frozen=True)
class Compiler:
    """nvcc (`path`), or NVRTC where `path` is None. version: part of the name of what it made."""

    version: str
    path: str | None = None

    def compile(self, arch: int, defines: tuple[str, ...] = ()) -> bytes:
        """The cubin for compute capability `arch` (80, 90, ...). Raises JobFailed."""
        return _nvcc(self.path, arch, defines)[0] if self.path else _nvrtc(arch, defines)


def find_compiler() -> Compiler | None:
    """NVRTC with cuda.core where both are installed, else nvcc, else None."""
    if all(importlib.util.find_spec(name) for name in ("cuda", "cuda.core", "cuda.bindings")):
        from cuda.bindings import nvrtc  # type: ignore[import-not-found]

        error, *version = nvrtc.nvrtcVersion()
        if int(error) == 0:
            return Compiler(f"nvrtc {version[0]}.{version[1]}")
    path = shutil.which("nvcc")
    return None if path is None else Compiler(_version(path), path)


def _version(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False).stdout
    found = re.search(r"V[0-9.]+", said)
    return f"nvcc {found[0] if found else 'unknown'}"


def _nvrtc(arch: int, defines: tuple[str, ...]) -> bytes:
    from cuda.core import Program, ProgramOptions  # type: ignore[import-not-found]

    options = ProgramOptions(
        arch=f"sm_{arch}", std="c++17", fma=False, prec_div=True, ftz=False, include_path=str(SOURCES),
        define_macro=[tuple(text.split("=")) for text in defines] or None,
    )  # fmt: skip
    try:
        return bytes(Program((SOURCES / "kernels.cu").read_text(), "c++", options).compile("cubin").code)
    except Exception as error:  # cuda.core's own errors derive from Exception only
        raise JobFailed("the GPU kernels could not be compiled", got=str(error)[-600:]) from error


def _nvcc(path: str, arch: int, defines: tuple[str, ...]) -> tuple[bytes, str]:
    """(cubin, what ptxas says of registers and spills)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernels.cubin"
        command = [path, "-O3", *OPTIONS, "-Xptxas", "-v", *(f"-D{text}" for text in defines), f"-arch=sm_{arch}"]
        try:
            done = subprocess.run(
                [*command, "-cubin", "-o", str(out), str(SOURCES / "kernels.cu")],
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise JobFailed("the GPU kernels could not be compiled", got=str(error)[:300]) from error
        if done.returncode != 0:
            raise JobFailed("the GPU kernels could not be compiled", got=done.stderr.strip()[-600:])
        return out.read_bytes(), done.stderr


def usage(compiler: Compiler, arch: int, defines: tuple[str, ...] = ()) -> dict[str, dict[str, int]]:
    """Registers and bytes of spills of every kernel, as ptxas reports them. Raises JobFailed, Unsupported."""
    if compiler.path is None:
        raise Unsupported("only nvcc says what registers its kernels use", expected="nvcc", got=compiler.version)
    report = _nvcc(compiler.path, arch, defines)[1]
    pattern = re.compile(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        re.DOTALL,
    )
    return {
        name: {"registers": int(registers), "spills": int(stores) + int(loads)}
        for name, stores, loads, registers in pattern.findall(report)
    }


def cache_folder() -> Path:
    """$BITWRIGHT_CUBIN_CACHE, or bitwright/cubin in the user's cache folder."""
    named = os.environ.get("BITWRIGHT_CUBIN_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "bitwright" / "cubin"


def cubin(arch: int, compiler: Compiler, *, folder: Path | None = None, defines: tuple[str, ...] = ()) -> bytes:
    """The compiled kernels, from the cache where an intact file of exactly these sources lies there."""
    key = hashlib.sha256(repr((arch, compiler.version, OPTIONS, defines)).encode())
    for name in FILES:
        key.update((SOURCES / name).read_bytes())
    file = (folder or cache_folder()) / f"{key.hexdigest()[:32]}.cubin"
    if file.is_file():
        data = file.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            return data[32:]
    made = compiler.compile(arch, defines)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as handle:
        handle.write(hashlib.sha256(made).digest() + made)
    Path(handle.name).replace(file)
    return made


def main() -> int:
    """Compile every kernel for sm_80 and sm_90 and print what each needs; 1 when one spills."""
    path = shutil.which("nvcc")
    if path is None:
        print("nvcc was not found: nothing was compiled")
        return 1
    worst = 0
    for arch in (80, 90):
        for name, need in sorted(usage(Compiler(_version(path), path), arch).items()):
            worst = max(worst, need["spills"])
            print(f"sm_{arch}  {name:24} {need['registers']:4} registers  {need['spills']} bytes of spills")
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
