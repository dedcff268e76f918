"""Groups on several threads: all are done once, memory is bounded, the first error ends it, and the bytes stay."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.formats import parse_format
from gpu_kernels import threads
from quantizers.containers import crew
from quantizers.containers.catalog import CONTAINERS
from tests.containers.toy import toy


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=30), st.integers(1, 5))
def test_every_group_is_done_once_within_the_bound_of_memory(sizes: list[int], workers: int) -> None:
    held, most, lock = 0, 0, threading.Lock()

    def work(index: int) -> int:
        nonlocal held, most
        with lock:
            held += sizes[index]
            most = max(most, held)
        with lock:
            held -= sizes[index]
        return index * 7

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crew, "ROOM", 500)
        found = list(crew.finished(range(len(sizes)), lambda index: sizes[index], work, workers=workers))
    assert sorted(found) == [(index, index * 7) for index in range(len(sizes))]
    assert most <= 500


def test_one_worker_keeps_the_order_in_which_neighbours_share_what_they_need() -> None:
    order: list[int] = []
    list(crew.finished(range(20), lambda index: index % 3, order.append, workers=1))
    assert order == list(range(20))


def test_the_first_error_ends_it_and_little_more_is_begun() -> None:
    begun = []

    def work(index: int) -> None:
        begun.append(index)
        if index == 3:
            raise ValueError("3")
        time.sleep(0.001)

    with pytest.raises(ValueError, match="3"):
        list(crew.finished(range(1000), lambda index: 1, work, workers=2))
    assert len(begun) < 20


@pytest.mark.parametrize("container", ["packed", "compressed-tensors", "mlx"])
def test_several_threads_write_the_bytes_of_one(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, inventory = toy(tmp_path / "model", {f"layers.{i}.weight": (32 + 32 * i, 96) for i in range(6)})
    formats = [parse_format(f"int{b}-sym-g32" if container != "mlx" else "int4-g32") for b in (2, 3, 4, 8, 4, 2)]
    written = []
    for count in (1, 3):
        monkeypatch.setattr(threads, "threads", lambda count=count: count)
        monkeypatch.setattr(crew, "threads", lambda count=count: count)
        CONTAINERS.load(container).write(source, inventory, formats, tmp_path / f"out{count}")
        written.append((tmp_path / f"out{count}" / "model.safetensors").read_bytes())
    assert written[0] == written[1]
    assert np.frombuffer(written[0], np.uint8).any()
