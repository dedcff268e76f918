"""For everyone: axe finds nothing serious, every control can be reached and worked from the keyboard, phones fit."""

from __future__ import annotations

import pytest

from tests.dashboard.chromium import Browser, find_chromium
from tests.dashboard.conftest import Site
from tests.dashboard.sample_state import views

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is missing; `make test` installs Debian's"),
]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_axe_finds_nothing_serious(site: Site, browser: Browser, width: int, dark: bool) -> None:
    server, made = site
    browser.look(width, 900, dark=dark)
    found = {}
    for name, fragment in views(made).items():
        browser.open(f"{server.url}/{fragment}")
        if lines := browser.axe():
            found[name] = lines
    assert not found
