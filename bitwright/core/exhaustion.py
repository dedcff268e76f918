"""Whether an error means that memory ran out: Python says it in one way, allocators and linkers in others."""

from __future__ import annotations

#: What malloc, mmap, C++, torch's allocator, the dynamic linker and the threads of a library say.
_WORDS = (
    "out of memory",
    "not enough memory",
    "cannot allocate memory",
    "can't allocate memory",
    "unable to mmap",
    "bad_alloc",
    "start new thread",
    "failed to map segment from shared object",
)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that the memory of this process ran out."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(text in words for text in _WORDS)
