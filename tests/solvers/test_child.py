"""Foreign libraries in child processes: killed when late, errors told, nothing left behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from bitwright.core.errors import JobFailed
from solvers.child import Arrays, Child

HERE = "tests.solvers.test_child"


def doubled(arrays: Arrays) -> Arrays:
    """Served by the child of these tests."""
    return {"twice": 2 * arrays["x"], "process": np.array(os.getpid())}


def asleep(arrays: Arrays) -> Arrays:
    time.sleep(600)
    return arrays


def failing(arrays: Arrays) -> Arrays:
    raise ValueError("no such option")


def dying(arrays: Arrays) -> Arrays:
    os._exit(7)


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    found = Child(f"{HERE}:{request.param}")
    yield found
    found.close()


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


@pytest.mark.parametrize("child", ["doubled"], indirect=True)
def test_calls_are_answered_by_one_warm_process_and_by_a_new_one_when_it_is_gone(child: Child) -> None:
    first = child.call({"x": np.arange(3)}, soon())
    assert first is not None
    assert first["twice"].tolist() == [0, 2, 4]
    big = child.call({"x": np.ones(500_000)}, soon())  # more than a pipe holds, both ways
    assert big is not None
    assert big["twice"].sum() == 1_000_000
    assert big["process"] == first["process"]
    psutil.Process(int(first["process"])).kill()
    again = child.call({"x": np.arange(3)}, soon())
    assert again is not None
    assert again["process"] != first["process"]


@pytest.mark.parametrize("child", ["asleep"], indirect=True)
def test_what_is_late_is_killed(child: Child) -> None:
    child.call({"x": np.zeros(1)}, soon(0.0))  # only starts the process
    assert child.process is not None
    process = psutil.Process(child.process.pid)
    for _ in range(60):  # calls that find it still importing leave it alone
        assert child.call({"x": np.zeros(1)}, soon(1.0)) is None
        if child.process is None:
            break
    assert not process.is_running()


@pytest.mark.parametrize("child", ["doubled"], indirect=True)
def test_a_process_that_takes_nothing_is_late(child: Child) -> None:
    """Regression: a request larger than a pipe was written without a look at the clock."""
    first = child.call({"x": np.arange(3)}, soon())
    assert first is not None
    psutil.Process(int(first["process"])).suspend()
    assert child.call({"x": np.ones(500_000)}, soon(0.2)) is None
    again = child.call({"x": np.arange(3)}, soon())
    assert again is not None
    assert again["process"] != first["process"]


@pytest.mark.parametrize("child", ["asleep"], indirect=True)
def test_another_thread_s_call_is_not_waited_for_beyond_the_end(child: Child) -> None:
    """Regression: the second call waited for the first one to end, whatever its own time was."""
    thread = threading.Thread(target=child.call, args=({"x": np.zeros(1)}, soon(3.0)))
    thread.start()
    while not child.lock.locked():
        time.sleep(0.001)
    assert child.call({"x": np.zeros(1)}, soon(0.0)) is None
    assert thread.is_alive()
    thread.join()


@pytest.mark.parametrize(
    ("child", "words"), [("failing", "no such option"), ("dying", "exit code")], indirect=["child"]
)
def test_what_fails_is_told(child: Child, words: str) -> None:
    with pytest.raises(JobFailed) as caught:
        child.call({"x": np.zeros(1)}, soon())
    assert words in str(caught.value.got)
