"""What goes wrong: lost servers, expired keys, jobs that vanish, hostile and endless names, tables of 50,000 units."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Route
from sqlalchemy import delete

from bitwright.jobs.tables import jobs
from service.keys import KeyFile
from tests.api.running import Running, running_server
from tests.dashboard.chromium import Browser, find_chromium
from tests.dashboard.conftest import Site
from tests.dashboard.sample_state import finished_plan, moe_units, store_table, table_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is missing; `make test` installs Debian's"),
]
KEY = "a-key-of-sixteen-letters"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&"


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_server_that_goes_away_and_comes_back_is_followed_again(tmp_path: Path, browser: Browser, port: int) -> None:
    with running_server(tmp_path, port=port) as server:
        job = server.submit(model="hf:org/patient")
        claim = server.claim(job["id"])
        browser.open(f"{server.url}/#/jobs/{job['id']}")
        browser.wait("document.querySelector('.state.running') !== null")
    browser.wait("!document.getElementById('offline').hidden")
    with running_server(tmp_path, port=port) as server:
        server.store.progress(job["id"], claim.attempt, "score", 0.5, "back again")
        browser.wait("document.body.innerText.includes('back again')")
        assert browser.evaluate("document.getElementById('offline').hidden")
        server.store.succeed(job["id"], claim.attempt, {"answer": 1})
        browser.wait("document.querySelector('.state.succeeded') !== null")
        browser.wait("document.querySelector('.timeline').innerText.includes('succeeded')")
    browser.forgive("ERR_")


def test_where_streams_are_refused_a_job_is_followed_by_polls(site: Site, browser: Browser) -> None:
    server, _ = site
    job = server.submit(model="hf:org/polled")
    claim = server.claim(job["id"])
    refused, polled = [], []

    def refuse(route: Route) -> None:
        refused.append(route.request.url)
        route.fulfill(status=503, content_type="application/problem+json", body='{"detail": "no streams"}')

    browser.page.route("**/events", refuse)
    browser.page.on("request", lambda request: polled.append(request.headers) if "?wait=" in request.url else None)
    browser.open(f"{server.url}/#/jobs/{job['id']}")
    browser.wait("document.querySelector('.state.running') !== null")
    server.store.progress(job["id"], claim.attempt, "score", 0.6, "told by a poll")
    browser.wait("document.body.innerText.includes('told by a poll')")
    server.store.succeed(job["id"], claim.attempt, {"answer": 1})
    browser.wait("document.querySelector('.state.succeeded') !== null")
    browser.wait("document.querySelector('.timeline').innerText.includes('could not all be read: no streams')")
    assert refused
    assert any("if-none-match" in headers for headers in polled)
    browser.page.unroute("**/events")
    browser.forgive("503")


def test_a_job_deleted_while_it_is_watched_is_told(site: Site, browser: Browser) -> None:
    server, _ = site
    job = server.submit(model="hf:org/short-lived")
    server.claim(job["id"])
    browser.open(f"{server.url}/#/jobs/{job['id']}")
    browser.wait("document.querySelector('.state.running') !== null")
    with server.store.database.write() as tx:
        tx.connection.execute(delete(jobs).where(jobs.c.id == job["id"]))
    browser.wait("document.querySelector('.problem') !== null", 40)
    assert "was removed" in browser.text("main")
    browser.forgive("404")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that asks for a key."""
    folder = tmp_path_factory.mktemp("locked")
    with running_server(folder, api_key=KEY) as server:
        yield server


def test_a_key_is_asked_for_and_an_expired_one_again(locked: Running, browser: Browser) -> None:
    browser.open(f"{locked.url}/#/jobs", ready="dialog #api-key")
    assert "asks for an API key" in browser.text("dialog")
    assert browser.axe() == []
    browser.page.keyboard.press("Escape")
    browser.wait("document.querySelector('.problem') !== null")
    browser.page.wait_for_timeout(4500)  # the list asks the server again meanwhile
    assert browser.evaluate("document.querySelector('dialog') === null"), "who says no is not asked over and over"
    browser.page.get_by_role("button", name="Enter a key").click()
    browser.page.keyboard.type("wrong-key-of-sixteen-letters")
    browser.press("Enter")
    browser.wait("document.querySelector('dialog')?.innerText.includes('not valid any more')")
    enter_key(browser, KEY)
    browser.wait("document.body.innerText.includes('No jobs yet')")
    browser.evaluate("sessionStorage.clear()")
    browser.forgive("401")


def enter_key(browser: Browser, text: str) -> None:
    browser.wait("document.activeElement.id === 'api-key'")
    browser.page.keyboard.type(text)
    browser.press("Enter")
    browser.wait("document.querySelector('dialog') === null")


def test_a_key_that_expires_while_a_budget_is_dragged_is_replaced_and_the_view_stays(
    tmp_path: Path, browser: Browser
) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    lasting, _ = keys.create("lasting")
    brief, key = keys.create("brief", days=8 / 86_400)
    with running_server(tmp_path) as server:
        table = store_table(server.blobs, table_of("hf:org/kept", moe_units(2, 2), 3))
        browser.open(f"{server.url}/#/frontier/{table}", ready="dialog #api-key")
        enter_key(browser, brief)
        browser.wait("document.querySelector('[data-budget]') !== null")
        browser.evaluate("document.querySelector('input[type=range]').focus()")
        browser.press("PageUp")
        browser.page.wait_for_timeout(300)
        before = browser.text(".readout")
        browser.page.wait_for_timeout(max(0.0, 1e3 * ((key.expires_at or 0) - time.time()) + 50))
        answer = server.http.get("/v1/jobs", headers={"Authorization": f"Bearer {brief}"})
        assert answer.json()["detail"] == "the API key 'brief' has expired"
        browser.page.get_by_role("button", name="Prove this plan").click()
        browser.wait("document.querySelector('dialog')?.innerText.includes(\"The API key 'brief' has expired\")")
        enter_key(browser, lasting)
        browser.wait("document.querySelector('.verdict') !== null")
        assert browser.text(".readout") == before
        browser.evaluate("sessionStorage.clear()")
    browser.forgive("401")


def test_a_watched_job_behind_a_key_is_followed_live(locked: Running, browser: Browser) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = locked.http.post("/v1/jobs", json={"kind": "inspect", "model": "hf:org/secret"}, headers=headers)
    job = answer.json()
    browser.open(f"{locked.url}/#/jobs", ready="dialog")
    browser.evaluate(f"sessionStorage.setItem('bitwright-key', {json.dumps(KEY)})")
    browser.open(f"{locked.url}/#/jobs/{job['id']}")
    claim = locked.claim(job["id"])
    locked.store.progress(job["id"], claim.attempt, "inspect", 0.4, "half way")
    browser.wait("document.body.innerText.includes('half way')")
    browser.wait("document.body.innerText.includes('worker test-worker')")
    locked.store.succeed(job["id"], claim.attempt, {})
    browser.wait("document.querySelector('.state.succeeded') !== null")
    browser.evaluate("sessionStorage.clear()")
    browser.forgive("401")


def test_script_in_every_name_and_names_without_end_are_shown_as_text(tmp_path: Path, browser: Browser) -> None:
    long = "n" * 250
    with running_server(tmp_path) as server:
        units = [
            replace(unit, name=f"{HOSTILE}{unit.name}{long}"[:250], module=f"{HOSTILE}{unit.module}{long}"[:250])
            for unit in moe_units(2, 1)
        ]
        table = table_of(f"file:models/{HOSTILE}{long}"[:250], units, 5)
        plan = finished_plan(server.store, server.blobs, table, 3.0)
        for width, dark in ((1280, False), (390, True)):
            browser.look(width, 844, dark=dark)
            for fragment in (f"#/plans/{plan}", f"#/frontier/{table.digest}", "#/jobs", f"#/compare?a={plan}&b={plan}"):
                browser.open(f"{server.url}/{fragment}")
                assert browser.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, fragment
                assert browser.evaluate("document.querySelectorAll('main img, main script').length") == 0
            browser.open(f"{server.url}/#/plans/{plan}")
            assert HOSTILE in browser.text("main")
            browser.evaluate("document.querySelector('.heat td[role=gridcell]').click()")


def test_fifty_thousand_units_can_be_dragged_unfolded_and_planned(site: Site, browser: Browser) -> None:
    server, _ = site
    units = moe_units(66, 256)
    assert len(units) == 50_688
    formats = ("int2-g64", "int3-g64", "int4-g64", "fp16")
    table = table_of("hf:org/huge", units, 3, formats, np.array([2, 3, 4, 14.0]))
    digest = "sha256:" + "5" * 64  # the true one takes seconds at this size, and nothing here depends on it
    table.save(server.blobs.path("tables", digest))
    browser.open(f"{server.url}/#/frontier/{digest}")
    browser.evaluate("document.querySelector('.heat td[role=gridcell]').click()")
    assert browser.evaluate("document.querySelectorAll('.expert').length") == 256
    before = browser.text(".readout")
    browser.evaluate("document.querySelector('input[type=range]').focus()")
    for _ in range(4):
        browser.press("PageUp")
    browser.wait(f"document.querySelector('.readout').innerText !== {json.dumps(before)}")
    assert browser.evaluate("document.querySelectorAll('.lights > li').length") >= 8


@pytest.mark.parametrize("name", ["jobs", "plan", "frontier", "new", "system"])
def test_a_page_says_that_it_loads_before_its_data_come(site: Site, browser: Browser, name: str) -> None:
    server, made = site
    fragments = {"jobs": "#/jobs", "plan": f"#/plans/{made['plan']}", "frontier": f"#/frontier/{made['llama_table']}",
                 "new": "#/new", "system": "#/system"}  # fmt: skip
    held: list[Route] = []
    released: list[bool] = []
    browser.page.route("**/v1/**", lambda route: route.continue_() if released else held.append(route))
    browser.page.goto("about:blank")
    browser.page.goto(f"{server.url}/{fragments[name]}")
    browser.wait("document.querySelector('main').innerText.includes('Loading')")
    released.append(True)
    for route in held:
        route.continue_()
    browser.wait("document.querySelector('main[data-ready]') !== null")
    browser.page.unroute("**/v1/**")


def test_every_state_has_a_job_to_look_at(samples: tuple[Path, dict[str, str]]) -> None:
    """The samples that screenshots are taken of hold every state."""
    _, made = samples
    assert {"failed", "running", "plan", "moe_plan"} <= set(made)
