"""For everyone: axe finds nothing serious, every control can be reached and worked from the keyboard, phones fit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.running import Running, running_server
from tests.dashboard.chromium import Browser, find_chromium
from tests.dashboard.sample_state import fill, views

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is missing; `make test` installs Debian's"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str]]]:
    with running_server(tmp_path_factory.mktemp("site")) as server:
        yield server, fill(server.settings)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_axe_finds_nothing_serious(
    site: tuple[Running, dict[str, str]], browser: Browser, width: int, dark: bool
) -> None:
    server, made = site
    browser.look(width, 900, dark=dark)
    found = {}
    for name, fragment in views(made).items():
        browser.open(f"{server.url}/{fragment}")
        if lines := browser.axe():
            found[name] = lines
    assert not found
