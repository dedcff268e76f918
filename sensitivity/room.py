"""Whether this process may take what torch needs before it does anything: asked before torch is loaded.

Where memory ends while a library's constructors run, C++ ends the process (std::bad_alloc, status 134) and OpenBLAS
asks for ever: nothing that Python could catch. So the limits are looked at first.
"""

from __future__ import annotations

import resource
import sys
from importlib.util import find_spec
from pathlib import Path

from bitwright.core.errors import OutOfResources
from sensitivity.memory import group_memory, left_of

#: What torch and scipy take when they are loaded: data, and address space beside their files. 128 MiB of data were
#: measured (torch 2.13, CPU); processes that had 40 MiB more were ended too, or wrote MemoryErrors without end.
LOADING_BYTES, BESIDE_BYTES = 192 << 20, 128 << 20
_MIB = 1 << 20


def require_room() -> None:
    """Raises OutOfResources where a limit of this process or of its control group leaves no room for torch."""
    if "torch" in sys.modules:
        return
    mapped = _library_bytes()
    for what, left, needed in (
        ("address space (RLIMIT_AS, ulimit -v)", left_of(resource.RLIMIT_AS), mapped + BESIDE_BYTES),
        ("data (RLIMIT_DATA, ulimit -d)", left_of(resource.RLIMIT_DATA), LOADING_BYTES),
        ("memory of its control group", group_memory(), LOADING_BYTES),
    ):
        if left < needed:
            raise OutOfResources(
                f"too little {what} for this process to load torch",
                expected=f"{needed / _MIB:.0f} MiB free, and what the model needs", got=f"{left / _MIB:.0f} MiB",
                hint="raise that limit (in a container --memory, of a server's jobs BITWRIGHT_JOB_MEMORY_BYTES)",
            )  # fmt: skip


def _library_bytes() -> int:
    """Bytes of torch's shared libraries, which are mapped whole; 0 where there is no torch."""
    spec = find_spec("torch")
    folders = [] if spec is None else [Path(folder) / "lib" for folder in spec.submodule_search_locations or ()]
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.so*"))
