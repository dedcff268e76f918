"""One server full of sample jobs and one browser a test module; whatever a test does, the page must not complain."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitwright.settings import Settings
from tests.api.running import Running, running_server
from tests.dashboard.chromium import Browser
from tests.dashboard.sample_state import fill

Site = tuple[Running, dict[str, str]]


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A state folder full of sample jobs, to copy; digests and ids of its jobs, plans and tables by name."""
    folder = tmp_path_factory.mktemp("samples")
    return folder, fill(Settings(state_dir=folder))


@pytest.fixture(scope="module")
def site(samples: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """(server, what `samples` made) of a copy."""
    folder, made = samples
    state = shutil.copytree(folder, tmp_path_factory.mktemp("site") / "state")
    with running_server(state) as server:
        yield server, made


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
