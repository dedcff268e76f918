"""Real PostgreSQL and Redis servers for tests, each on a free port of this host, under an unprivileged user.

`postgresql_server()` and `redis_server()` give a URL while open, or None where the host has no such program
(`make test` installs Debian's `postgresql` and `redis-server`).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS_TO_START = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_program(name: str) -> Path | None:
    """On the PATH, or where Debian hides it."""
    found = shutil.which(name)
    if found:
        return Path(found)
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return candidates[0] if candidates else None


def _unprivileged() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: the account to use instead, None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _as(account: pwd.struct_passwd | None) -> dict[str, int]:
    return {"user": account.pw_uid, "group": account.pw_gid} if account else {}


class Server:
    """A server process that can be killed and started again on the same data."""

    def __init__(self, url: str, start: Callable[[], subprocess.Popen[bytes]], ready: Callable[[], bool]) -> None:
        self.url = url
        self._start = start
        self._ready = ready
        self.process = start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        end = time.monotonic() + SECONDS_TO_START
        while not self._ready():
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"the server of {self.url} did not start (exit status {self.process.poll()})")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        self.stop(how)
        self.process = self._start()
        self.wait_until_ready()


@contextmanager
def postgresql_server() -> Iterator[Server | None]:
    """A new cluster; `url` names its database as SQLAlchemy does."""
    postgres, initdb = find_program("postgres"), find_program("initdb")
    if postgres is None or initdb is None:
        yield None
        return
    account = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="bitwright-pg-"))
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    data, port = folder / "data", free_port()
    subprocess.run(
        [initdb, "-D", data, "-U", "bitwright", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"],
        check=True, capture_output=True, cwd=folder, **_as(account),
    )  # fmt: skip
    options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-k", str(folder), "-c", "max_connections=200"]
    options += ["-c", "fsync=off"]  # a killed process loses nothing by it; only a killed kernel would

    def start() -> subprocess.Popen[bytes]:
        log = (folder / "log").open("ab")
        with log:
            return subprocess.Popen(
                [postgres, "-D", data, *options], stdout=log, stderr=log, cwd=folder, **_as(account)
            )

    def ready() -> bool:
        import psycopg

        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=bitwright dbname=postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    server = Server(f"postgresql+psycopg://bitwright@127.0.0.1:{port}/postgres", start, ready)
    try:
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_server() -> Iterator[Server | None]:
    """An empty Redis with the settings that docs recommend for the doorbell."""
    program = find_program("redis-server")
    if program is None:
        yield None
        return
    folder, port = Path(tempfile.mkdtemp(prefix="bitwright-redis-")), free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [program, *options, "--maxmemory-policy", "noeviction"], stdout=subprocess.DEVNULL, cwd=folder
        )

    def ready() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return False
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")

    server = Server(f"redis://127.0.0.1:{port}/0", start, ready)
    try:
        yield server
    finally:
        server.stop(signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
