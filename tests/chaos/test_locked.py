"""POSTs while somebody holds the database's write lock: an answer of 202 means a row, any other answer means none."""

from __future__ import annotations

import queue
import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.running import running_server
from tests.chaos.sizes import SEED, reproduce, size

TRIALS = size(10_000, 300)
BUSY = 0.4
LONG = 2 * BUSY
THREADS = 32
FIRST = 60  # seconds: how long the first hold waits for somebody to be refused, on however slow a machine


def hold_now_and_then(
    path: str, held: threading.Event, turned_away: threading.Event, stop: threading.Event, chance: random.Random
) -> None:
    """Take the write lock until a request has been refused, then again and again for a shorter or a longer while."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    held.set()
    turned_away.wait(FIRST)
    connection.execute("ROLLBACK")
    while not stop.wait(chance.uniform(0.05, 0.3)):
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(chance.choice((0.01, 0.05, 0.2, LONG)))
        connection.execute("ROLLBACK")
    connection.close()


@pytest.mark.timeout(900)
def test_no_202_without_a_row_while_the_database_is_locked(tmp_path):
    with running_server(tmp_path, busy_seconds=BUSY, tenant_queued_jobs=100_000) as server:
        path = server.store.database.url.database
        held, turned_away, stop = threading.Event(), threading.Event(), threading.Event()
        chance = random.Random(SEED)
        holder = threading.Thread(target=hold_now_and_then, args=(path, held, turned_away, stop, chance))
        holder.start()

        callers: queue.SimpleQueue[httpx.Client] = queue.SimpleQueue()  # a client each: one connection, one request
        for _ in range(THREADS):
            callers.put(httpx.Client(base_url=server.url, timeout=120))

        def trial(number: int) -> tuple[int, str | None, bool]:
            body = {"kind": "inspect", "model": f"file:models/{number}"}
            http = callers.get()
            answer = http.post("/v1/jobs", json=body)
            callers.put(http)
            if answer.status_code == 503:
                turned_away.set()
            retry = "retry-after" in answer.headers
            return answer.status_code, answer.json().get("id"), retry

        assert held.wait(30)
        with ThreadPoolExecutor(THREADS) as pool:
            answers = list(pool.map(trial, range(TRIALS)))
        while not callers.empty():
            callers.get().close()
        stop.set()
        holder.join()
        there = {row[0] for row in sqlite3.connect(path).execute("SELECT id FROM jobs")}
    told = [identity for status, identity, _ in answers if status == 202]
    refused = [retry for status, _, retry in answers if status == 503]
    how = f"{len(told)} accepted, {len(refused)} refused; {reproduce('tests/chaos/test_locked.py')}"
    print(how)
    assert len(told) + len(refused) == TRIALS, how
    assert set(told) == there, how
    assert all(refused), how
    assert refused, f"nobody was refused: the test tested nothing; {how}"
