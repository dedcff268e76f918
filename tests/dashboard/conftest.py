"""One server full of sample jobs and one browser a test module; whatever a test does, the page must not complain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.running import Running, running_server
from tests.dashboard.chromium import Browser
from tests.dashboard.sample_state import fill

Site = tuple[Running, dict[str, str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """(server, digests and ids of its jobs, plans and tables by name)."""
    with running_server(tmp_path_factory.mktemp("site")) as server:
        yield server, fill(server.settings)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """No exception, no console error and no policy violation may be left when a test ends."""
    chromium.look(1280, 900)
    chromium.complaints.clear()
    yield chromium
    assert not chromium.complaints
