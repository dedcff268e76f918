"""Where the native solver library lies. Its name carries a hash of the sources and flags: one of other sources is never
loaded, since called with other arguments than it was compiled for, it would not fail but crash."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: No contraction into fused multiply-adds: the compiled code must round as the numpy oracle does.
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-ffp-contract=off", "-pthread")


def library_path() -> Path:
    """Where the library of exactly these sources lies or would lie."""
    digest = hashlib.sha256(repr((FLAGS, platform.machine())).encode())
    for source in sorted(HERE.glob("*.[ch]pp")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return HERE / f"libbitwright_solvers-{digest.hexdigest()[:16]}.so"
