"""Work for tests: what the child does is written in the `model` of an inspect request, as `file:do/<verb>/...`."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Verb = Callable[..., Any]


@dataclass(frozen=True)
class Context:
    state: Path
    progress: Callable[[str, float, str], None]
    settings: dict[str, Any]


def run(
    request: dict[str, Any], settings: dict[str, Any], progress: Callable[[str, float, str], None]
) -> dict[str, Any]:
    """`file:do/sleep/2.5` sleeps; see VERBS."""
    _, verb, *words = request["model"].split("/")
    if request["kind"] == "step":
        from tests.worker import fake_parts  # heavy: only the work that needs it pays for it

        return fake_parts.do(request, settings, progress)
    progress("working", 0.5, verb)
    return {"value": VERBS[verb](Context(Path(settings["state_dir"]), progress, settings), *words)}


def answer(_: Any, text: str = "42") -> str:
    return text


def sleep(_: Any, seconds: str) -> str:
    time.sleep(float(seconds))
    return seconds


def until(context: Any, name: str) -> str:
    """Work until a file of that name lies in the state folder: a test says when, not a clock."""
    while not (context.state / name).exists():
        time.sleep(0.02)
    return name


def hang(context: Any) -> None:
    (context.state / "hanging").write_text(str(os.getpid()))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def exit_with(_: Any, status: str) -> None:
    os._exit(int(status))


def crash(_: Any, number: str) -> None:
    os.kill(os.getpid(), int(number))
    time.sleep(60)


def typed(_: Any) -> None:
    from bitwright.core.errors import InvalidModel

    raise InvalidModel("the model is made of paper", expected="silicon", got="paper")


def temporary(_: Any) -> None:
    from bitwright.core.errors import Temporary

    raise Temporary("the hub does not answer")


def untyped(_: Any) -> None:
    raise ValueError("secret internals")


def memory(_: Any) -> int:
    return len(bytearray(1 << 43))


def grow(_: Any, megabytes: str, seconds: str = "0") -> int:
    """Take so much, in pieces, and keep it for so long."""
    held = []
    for _number in range(int(megabytes) // 20):
        held.append(b"x" * (20 * 2**20))
        time.sleep(0.1)
    time.sleep(float(seconds))
    return len(held)


def hold(_: Any, megabytes: str, seconds: str = "1") -> int:
    """Resident bytes of this process while it holds so much, long enough to be looked at."""
    held = b"x" * (int(megabytes) << 20)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    time.sleep(float(seconds))
    return resident + 0 * len(held)


def connect(_: Any) -> list[str]:
    """What becomes of sockets of three families."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        try:
            socket.socket(family).close()
            found.append("made")
        except PermissionError:
            found.append("refused")
    return found


def spread_out(context: Context, count: str) -> list[str]:
    from tests.worker import fake_parts

    return fake_parts.spread_out(int(count), context.settings, context.progress)


def disk(_: Any) -> None:
    raise OSError(28, "No space left on device")


def big_file(_: Any) -> None:
    with open(os.path.join(os.environ["TMPDIR"], "big"), "wb") as file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        file.write(b"x" * (1 << 22))


def descriptors(_: Any, count: str) -> int:
    """Open files until so many descriptors are in use."""
    while (last := os.open(os.devnull, os.O_RDONLY)) < int(count) - 1:
        pass
    return last + 1


def address_space(_: Any, more: str) -> int:
    """Bytes of address space in use, after taking so many more."""
    held = mmap.mmap(-1, int(more)) if int(more) else b""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    assert len(held) == int(more)
    return pages * mmap.PAGESIZE


def burn(_: Any, seconds: str = "inf") -> None:
    """Until this process has used so much processor time, its start included."""
    while time.process_time() < float(seconds):
        pass


def oversized(_: Any) -> str:
    return "x" * (1 << 20)


def not_a_number(_: Any) -> float:
    return float("nan")


def environment(_: Any) -> dict[str, str]:
    return dict(os.environ)


def scratch(_: Any) -> str:
    path = os.path.join(os.environ["TMPDIR"], "left-behind")
    with open(path, "w") as file:
        file.write("x")
    return path


def grandchild(context: Any) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (context.state / "grandchild").write_text(str(process.pid))
    hang(context)


def talk(context: Any, count: str) -> str:
    for number in range(int(count)):
        context.progress("talking", number / int(count), f"line {number}")
    return count


def fail_until(context: Any, attempts: str) -> str:
    """Die without a word until the file of marks holds `attempts` lines."""
    marks = context.state / "marks"
    with marks.open("a") as file:
        file.write("x\n")
    if len(marks.read_text().splitlines()) < int(attempts):
        os._exit(9)
    return "at last"


VERBS: dict[str, Verb] = {
    "descriptors": descriptors, "address-space": address_space,
    "until": until, "grow": grow, "hold": hold, "connect": connect, "spread": spread_out,
    "answer": answer, "sleep": sleep, "hang": hang, "exit": exit_with, "crash": crash, "typed": typed, "disk": disk,
    "temporary": temporary, "untyped": untyped, "memory": memory, "big-file": big_file, "burn": burn, "talk": talk,
    "oversized": oversized, "nan": not_a_number, "environment": environment, "scratch": scratch,
    "grandchild": grandchild, "fail-until": fail_until,
}  # fmt: skip
