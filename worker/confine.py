"""What a job's child does to itself before it reads anything that it was sent: it gives up what it does not need.

Called in the child, not between fork and exec: the parent has threads, and code between fork and exec may deadlock.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Mapping

from bitwright.core.offline import deny_network

#: prctl(2) options, from linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_KINDS = {
    "memory": resource.RLIMIT_AS,
    "cpu": resource.RLIMIT_CPU,
    "file": resource.RLIMIT_FSIZE,
    "descriptors": resource.RLIMIT_NOFILE,
}


def confine(limits: Mapping[str, int], parent: int, *, network: bool) -> None:
    """Apply resource limits (0 = none), refuse new privileges, give up the network unless it is needed, and die with
    the parent (process id `parent`)."""
    _limit(resource.RLIMIT_CORE, 0)
    for name, kind in _KINDS.items():
        if limits.get(name, 0) > 0:
            _limit(kind, limits[name])
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if not network:
        deny_network()
    if os.getppid() != parent:  # it died before the line above could tell us
        os._exit(1)


def die_with_parent(descriptor: int) -> None:
    """Kill this process group when the other end of `descriptor` closes: for systems without parent-death signals,
    and for processes that the work itself has started."""

    def watch() -> None:
        while os.read(descriptor, 65536):
            pass
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
