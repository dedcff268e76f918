"""Work on the groups of a checkpoint by several threads, within a bound of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from gpu_kernels.threads import alone, threads

Made = TypeVar("Made")
#: Bytes of groups that may be worked on together, if that is more than the largest one takes.
ROOM = 256 << 20


def finished(
    indexes: Sequence[int], size: Callable[[int], int], work: Callable[[int], Made], *, workers: int | None = None
) -> Iterator[tuple[int, Made]]:
    """(index, work(index)) as they end; the first error ends it.

    size: bytes of a group. workers: threads, all there are unless told. Several begin with the largest groups and work
    alone; one keeps the order, in which neighbours share what they need.
    """
    count = threads() if workers is None else workers
    left = list(indexes) if count == 1 else sorted(indexes, key=lambda index: (-size(index), index))
    room = max(ROOM, *map(size, left)) if left else 0
    busy: dict[Future[Made], int] = {}

    def one(index: int) -> Made:
        if count == 1:
            return work(index)
        with alone():
            return work(index)

    with ThreadPoolExecutor(count) as pool:
        while left or busy:
            # One more than there are threads, so that none waits for this one.
            while left and len(busy) <= count and (not busy or sum(map(size, busy.values())) + size(left[0]) <= room):
                index = left.pop(0)
                busy[pool.submit(one, index)] = index
            done, _ = wait(busy, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda future: busy[future]):
                yield busy.pop(future), future.result()
