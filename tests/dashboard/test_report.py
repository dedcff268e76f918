"""`bitwright report`: the plan's page in one file that fetches nothing, runs nothing foreign and opens from a disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitwright.cli import main
from bitwright.core.plan import Plan, load_plan
from bitwright.core.table import SensitivityTable
from service.bundle import bundle, page
from tests.dashboard.chromium import Browser, find_chromium
from tests.dashboard.sample_state import llama_units, moe_units, plan_of, table_of

HOSTILE = "</script><img src=x onerror=alert(1)><!--"
needs_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is missing; `make test` installs Debian's"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """plan.json, table.npz and the reports of both, as the command writes them."""
    folder = tmp_path_factory.mktemp("report")
    table = table_of("file:models/mixtral-small", moe_units(), 2)
    plan_of(table, 3.0).save(folder / "plan.json")
    table.save(folder / "table.npz")
    plan, tables = str(folder / "plan.json"), str(folder / "table.npz")
    assert main(["report", plan, "--out", str(folder / "alone.html")]) == 0
    assert main(["report", plan, "--table", tables, "--out", str(folder / "whole.html")]) == 0
    return folder


def opened(browser: Browser, path: Path) -> list[str]:
    """Opens a report; gives the addresses that it asked for."""
    asked: list[str] = []
    browser.page.on("request", lambda request: asked.append(request.url))
    browser.open(path.as_uri())
    return [url for url in asked if url.startswith(("http", "ws"))]


@pytest.mark.parametrize("_", [pytest.param(0, marks=needs_chromium)])
def test_report_shows_the_plan_and_asks_for_nothing(files: Path, browser: Browser, _: int) -> None:
    assert opened(browser, files / "alone.html") == []
    plan = load_plan(files / "plan.json")
    browser.wait("document.querySelectorAll('.lights li').length > 3")
    assert plan.certificate["status"].capitalize() in browser.text(".verdict")
    cells = browser.evaluate("document.querySelectorAll('.heat td[role=gridcell]').length")
    assert cells == len({(unit.module, unit.layer) for unit in plan.units})
    browser.evaluate("[...document.querySelectorAll('button')].find(b => b.textContent === 'mlx').click()")
    browser.wait("document.querySelector('.code pre, .problem') !== null")
    assert browser.axe() == []


@pytest.mark.parametrize("_", [pytest.param(0, marks=needs_chromium)])
def test_report_with_its_table_explains_and_can_be_dragged(files: Path, browser: Browser, _: int) -> None:
    assert opened(browser, files / "whole.html") == []
    browser.wait("document.body.innerText.includes('keep their format')")
    before = browser.text(".readout .bytes")
    browser.evaluate("document.querySelector('input[type=range]').focus()")
    browser.press("End")
    browser.wait(f"document.querySelector('.readout .bytes').textContent !== {before!r}")
    browser.evaluate("document.querySelector('.heat td[role=gridcell]').click()")
    browser.evaluate("document.querySelector('.expert').click()")
    browser.wait("document.body.innerText.includes('price of a byte')")


@pytest.mark.parametrize("_", [pytest.param(0, marks=needs_chromium)])
def test_names_full_of_markup_stay_text_in_a_report(tmp_path: Path, browser: Browser, _: int) -> None:
    plan = renamed(plan_of(table_of(HOSTILE, llama_units(2), 1), 3.0))
    plan.save(tmp_path / "plan.json")
    assert main(["report", str(tmp_path / "plan.json"), "--out", str(tmp_path / "out.html")]) == 0
    opened(browser, tmp_path / "out.html")
    assert HOSTILE in browser.text("h1")
    assert browser.evaluate("document.querySelectorAll('main img, main script').length") == 0


def renamed(plan: Plan) -> Plan:
    units = tuple(unit.model_copy(update={"module": f"{HOSTILE}{unit.module}"}) for unit in plan.units)
    return plan.model_copy(update={"units": units})


def test_a_report_names_the_digests_of_what_may_run(files: Path) -> None:
    html = (files / "alone.html").read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "unsafe" not in policy[1]
    assert "default-src 'none'" in policy[1]
    assert policy[1].count("sha256-") == 2
    assert not re.findall(r'(?:src|href)="(?!data:)', html)


def test_the_bundle_holds_each_module_once_and_no_import_is_left() -> None:
    script = bundle("report.js")
    assert not re.search(r"^(import|export) ", script, re.M)
    names = re.findall(r'^\$m\["([^"]+)"\] = ', script, re.M)
    assert len(names) == len(set(names))
    assert "api.js" not in names, "a report has no server"


def test_text_of_the_summary_is_escaped() -> None:
    html = page("<t>", HOSTILE, "report.js", {"plan": HOSTILE})
    assert HOSTILE not in html
    assert "<title>&lt;t&gt;</title>" in html


def test_a_table_of_another_model_is_refused(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other: SensitivityTable = table_of("hf:org/other", llama_units(1), 7)
    other.save(tmp_path / "other.npz")
    words = [
        "report",
        str(files / "plan.json"),
        "--table",
        str(tmp_path / "other.npz"),
        "--out",
        str(tmp_path / "o.html"),
    ]
    assert main(words) == 2
    assert "another model" in capsys.readouterr().err
    assert not (tmp_path / "o.html").exists()
