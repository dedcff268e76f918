"""The dashboard in a real Chromium: how long views take to open, and how long a dragged budget takes to be followed.

    python -m benchmarks.dashboard [--large]

Times are taken by the page itself: `open` from the navigation to the view's last element, `script` for everything that
follows one move of the budget (plan, heat map, bytes, preflight, numbers), `shown` until the second frame after it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests.api.running import Running, running_server
from tests.dashboard.chromium import Browser
from tests.dashboard.sample_state import (
    TWELVE,
    TWELVE_WIDTHS,
    fill,
    llama_units,
    moe_units,
    store_table,
    table_of,
    views,
)

STEPS = 40
_MOVE = """new Promise((done) => { const begun = performance.now();
  requestAnimationFrame(() => requestAnimationFrame(() => done([
    Number(document.querySelector('[data-budget]').dataset.milliseconds), performance.now() - begun]))); })"""


def opened(browser: Browser, url: str) -> float:
    """Milliseconds from the navigation until the view is ready."""
    browser.page.goto("about:blank")
    begun = time.perf_counter()
    browser.page.goto(url)
    browser.page.wait_for_selector("main[data-ready]", state="attached", timeout=120_000)
    return 1e3 * (time.perf_counter() - begun)


def dragged(browser: Browser) -> tuple[list[float], list[float]]:
    """(script, shown) of each of STEPS moves back and forth over the chart, in milliseconds."""
    box = browser.evaluate("document.querySelector('svg.frontier').getBoundingClientRect().toJSON()")
    y, script, shown = box["top"] + box["height"] / 2, [], []
    browser.page.mouse.move(box["left"] + 0.2 * box["width"], y)
    browser.page.mouse.down()
    for step in range(1, STEPS + 1):
        browser.page.mouse.move(box["left"] + box["width"] * (0.1 + 0.85 * (step * 17 % STEPS) / STEPS), y)
        once = browser.evaluate(_MOVE)
        script.append(once[0])
        shown.append(once[1])
    browser.page.mouse.up()
    return script, shown


def told(values: list[float]) -> str:
    return f"{statistics.median(values):6.1f} median {max(values):6.1f} most"


def drag_table(server: Running, browser: Browser, name: str, digest: str) -> None:
    first = opened(browser, f"{server.url}/#/frontier/{digest}")
    again = opened(browser, f"{server.url}/#/frontier/{digest}")
    browser.page.wait_for_timeout(500)
    script, shown = dragged(browser)
    print(f"{name:<24} open {first:7.0f} ms, again {again:7.0f} ms; script {told(script)} ms; shown {told(shown)} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="also 50,688 units x 12 formats (half a minute to make)")
    large = parser.parse_args().large
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server, Browser() as browser:
        made = fill(server.settings)
        opened(browser, f"{server.url}/#/jobs")
        for name, fragment in views(made).items():
            times = [opened(browser, f"{server.url}/{fragment}") for _ in range(5)]
            print(f"{name:<24} open {statistics.median(times):7.0f} ms median, {max(times):7.0f} ms most")
        small = table_of("hf:org/small", llama_units(143), 3, TWELVE, TWELVE_WIDTHS)
        drag_table(server, browser, f"{len(small.inventory.units):,} units x 12", store_table(server.blobs, small))
        if large:
            table = table_of("hf:org/large", moe_units(66, 256), 3, TWELVE, TWELVE_WIDTHS)
            drag_table(server, browser, f"{len(table.inventory.units):,} units x 12", store_table(server.blobs, table))


if __name__ == "__main__":
    main()
