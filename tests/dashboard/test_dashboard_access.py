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


#: On a phone only what looks different there.
ON_A_PHONE = {"jobs", "new", "plan with experts", "frontier"}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_axe_finds_nothing_serious(site: Site, browser: Browser, width: int, dark: bool) -> None:
    server, made = site
    browser.look(width, 900, dark=dark)
    found = {}
    for name, fragment in views(made).items():
        if width < 600 and name not in ON_A_PHONE:
            continue
        browser.open(f"{server.url}/{fragment}")
        if lines := browser.axe():
            found[name] = lines
    assert not found


def focused(browser: Browser) -> str:
    """What a screen reader would say of the focused element."""
    script = """(() => { const e = document.activeElement;
      return e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || e.title || ''; })()"""
    return str(browser.evaluate(script)).strip()


@pytest.mark.parametrize("name", ["jobs", "new", "plan", "frontier", "compare", "solve", "system"])
def test_tab_reaches_every_control_and_none_holds_it(site: Site, browser: Browser, name: str) -> None:
    server, made = site
    browser.open(f"{server.url}/{views(made)[name]}")
    browser.wait("!document.querySelector('main').innerText.includes('Loading …')")  # what comes after the page stands
    controls = """[...document.querySelectorAll('a[href], button, input, select, summary')]
      .filter((e) => !e.disabled && e.tabIndex >= 0 && e.getClientRects().length && e.type !== 'radio')"""
    wanted = browser.evaluate(f"{controls}.length")
    browser.evaluate(f"{controls}.forEach((e) => e.addEventListener('focus', () => {{ e.dataset.reached = '1'; }}))")
    for _ in range(wanted + 40):  # heat maps and scrolling regions take a stop each
        browser.press("Tab")
    missed = browser.evaluate(f"{controls}.filter((e) => !e.dataset.reached).map((e) => e.outerHTML.slice(0, 120))")
    assert missed == []


def test_the_budget_can_be_dragged_from_the_keyboard(site: Site, browser: Browser) -> None:
    server, made = site
    browser.open(f"{server.url}/#/frontier/{made['llama_table']}")
    browser.evaluate("document.querySelector('input[type=range]').focus()")
    before = browser.evaluate("document.querySelector('input[type=range]').getAttribute('aria-valuetext')")
    for key in ("ArrowRight", "ArrowRight", "PageUp"):
        browser.press(key)
    browser.wait(f"document.querySelector('input[type=range]').getAttribute('aria-valuetext') !== {before!r}")
    after = browser.evaluate("document.querySelector('input[type=range]').getAttribute('aria-valuetext')")
    assert "bits a weight, predicted loss" in after
    browser.press("Shift+Tab")
    browser.page.keyboard.press("Control+A")
    browser.page.keyboard.type("4.5")
    browser.press("Enter")
    browser.wait("/, 4\\.(499|5)\\d* bits/.test(document.querySelector('input.along').getAttribute('aria-valuetext'))")


def test_experts_are_walked_with_arrows_and_explained_with_enter(site: Site, browser: Browser) -> None:
    server, made = site
    browser.open(f"{server.url}/#/plans/{made['moe_plan']}")
    browser.evaluate("document.querySelector('.heat td[tabindex=\"0\"]').focus()")
    browser.press("Enter")
    browser.evaluate("document.querySelector('.expert').focus()")
    browser.press("ArrowRight")
    name = browser.evaluate("document.activeElement.getAttribute('aria-label')")
    assert ".experts.1." in name
    browser.press("Enter")
    browser.wait("document.querySelector('main').innerText.includes('price of a byte')")
    assert browser.evaluate("location.hash").count("?unit=") == 1


def test_the_skip_link_comes_first_and_the_page_has_one_heading(site: Site, browser: Browser) -> None:
    server, made = site
    for fragment in views(made).values():
        browser.open(f"{server.url}/{fragment}")
        browser.press("Tab")
        assert "Skip to content" in focused(browser)
        assert browser.evaluate("document.querySelectorAll('h1').length") == 1
