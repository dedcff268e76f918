"""How fast the service accepts jobs and solves small problems, over real HTTP on this host.

    python -m benchmarks.service [--seconds 5] [--connections 32]

A server process, a client process (plain sockets, no library) and, for the second row, PostgreSQL share the machine's
cores. Times include everything a caller sees.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from tests.servers import postgresql_server

UNITS, FORMATS = 224, 8


@dataclass(frozen=True)
class Rate:
    """Requests a second, milliseconds at two quantiles, and processor time of the server's processes for each."""

    name: str
    requests: int
    per_second: float
    p50: float
    p99: float
    cpu: float

    def __str__(self) -> str:
        return (
            f"{self.name:<44} {self.per_second:8.0f}/s   p50 {self.p50:6.1f} ms   p99 {self.p99:6.1f} ms"
            f"   {self.cpu:5.2f} ms CPU of the server each"
        )


@contextmanager
def server(url: str | None) -> Iterator[int]:
    """`bitwright serve --workers 0` on a free port."""
    with tempfile.TemporaryDirectory(prefix="bitwright-bench-") as folder:
        more = {"BITWRIGHT_TENANT_QUEUED_JOBS": "100000000", "BITWRIGHT_STATE_DIR": folder}
        if url is not None:
            more["BITWRIGHT_DATABASE_URL"] = url
        command = [sys.executable, "-m", "bitwright", "serve", "--workers", "0", "--port", "0", "--json"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **more}, text=True
        )
        assert process.stdout is not None
        try:
            yield int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()


def request_bytes(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return head.encode() + b"\r\n" + body


async def caller(port: int, request: bytes, end: float, times: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < end:
        start = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith((b"HTTP/1.1 202", b"HTTP/1.1 200")):
            raise SystemExit(f"unexpected answer: {head[:300]!r}")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        times.append(time.perf_counter() - start)
    writer.close()
    await writer.wait_closed()


def owner_of(port: int) -> int:
    """The process that listens there."""
    return next(c.pid for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port)


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and its children."""
    found = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in found)


def measure(name: str, port: int, request: bytes, *, seconds: float, connections: int) -> Rate:
    async def run(length: float) -> tuple[list[float], float]:
        times: list[float] = []
        start = time.perf_counter()
        await asyncio.gather(*(caller(port, request, start + length, times) for _ in range(connections)))
        return times, time.perf_counter() - start

    process = psutil.Process(owner_of(port))
    asyncio.run(run(0.5))
    before = cpu_seconds(process)
    times, took = asyncio.run(run(seconds))
    cpu = 1000 * (cpu_seconds(process) - before) / len(times)
    p50, p99 = (1000 * float(q) for q in np.quantile(times, (0.5, 0.99)))
    return Rate(name, len(times), len(times) / took, p50, p99, cpu)


def problem() -> bytes:
    """224 units in 8 formats: the size of a 7-billion-parameter model's tensors."""
    random = np.random.default_rng(0)
    loss = np.sort(random.gamma(1.0, 1.0, (UNITS, FORMATS)), axis=1)[:, ::-1].round(6)
    cost = np.outer(random.integers(1, 64, UNITS) * 1024, np.arange(1, FORMATS + 1))
    body = {"loss": loss.tolist(), "cost_bytes": cost.tolist(), "limit_bytes": int(cost[:, 3].sum())}
    return json.dumps({"problem": body}, separators=(",", ":")).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    job = request_bytes("/v1/jobs", json.dumps({"kind": "inspect", "model": "hf:org/name"}).encode())
    solve = request_bytes("/v1/solve", problem())
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, {Path(sys.executable).name}")
    options = {"seconds": given.seconds, "connections": given.connections}
    with server(None) as port:
        print(measure("POST /v1/jobs, SQLite", port, job, **options))
        print(measure("POST /v1/jobs, SQLite, one connection", port, job, **{**options, "connections": 1}))
        print(measure("POST /v1/solve 224 x 8, one connection", port, solve, **{**options, "connections": 1}))
        print(measure("POST /v1/solve 224 x 8, 4 connections", port, solve, **{**options, "connections": 4}))
    with postgresql_server() as database:
        if database is None:
            print("no PostgreSQL on this host")
            return
        with server(database.url) as port:
            print(measure("POST /v1/jobs, PostgreSQL", port, job, **options))
            print(measure("POST /v1/jobs, PostgreSQL, 64 connections", port, job, **{**options, "connections": 64}))


if __name__ == "__main__":
    main()
