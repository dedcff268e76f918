"""Half-done sums that outlive the process: a score or a measurement that was stopped goes on where it was kept.

Items are taken in one fixed order and sums are restored to the bit, so a resumed run gives the bytes of a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

State = Mapping[str, NDArray[Any]]


class Partial(Protocol):
    """Where a state is kept between processes. It belongs to one question: who keeps it names it by all its inputs."""

    def load(self) -> State:
        """The last state kept; empty when there is none."""
        ...

    def save(self, state: Callable[[], State]) -> None:
        """Keep this state instead. May be left undone, and the state unmade, when the last one is recent."""
        ...


class Forgetful:
    """Keeps nothing: for those who run in one go."""

    def load(self) -> State:
        return {}

    def save(self, state: Callable[[], State]) -> None:
        """Nothing is kept."""


FORGETFUL = Forgetful()
