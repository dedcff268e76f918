"""Names of jobs: version 7, and in the order in which they were given."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from bitwright.jobs.ids import new_id


def test_names_of_one_millisecond_keep_their_order() -> None:
    """Regression: jobs accepted within one millisecond were listed in another order."""
    names = [new_id(1_800_000_000.0) for _ in range(2000)]
    assert names == sorted(names)
    assert len(set(names)) == len(names)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=30))
def test_a_clock_that_steps_back_a_little_keeps_the_order(steps: list[float]) -> None:
    names = [new_id(1_900_000_000.0 - step) for step in steps]
    assert names == sorted(names)


def test_a_clock_that_was_set_is_followed() -> None:
    new_id(2_000_000_000.0)
    name = uuid.UUID(new_id(1_700_000_000.0))
    assert name.int >> 80 == 1_700_000_000_000
    assert name.version == 7
    assert name.variant == uuid.RFC_4122
