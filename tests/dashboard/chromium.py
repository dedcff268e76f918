"""Debian's Chromium driven by Playwright, with the few verbs that the dashboard's tests need. Nothing is downloaded."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

from playwright.sync_api import ConsoleMessage, Error, sync_playwright

#: WCAG 2.2 A and AA, and what axe calls best practice.
AXE_TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
#: Impacts that must not occur; axe's `minor` and `moderate` are printed.
SERIOUS = ("serious", "critical")


def find_chromium() -> str | None:
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Browser:
    """One page.

    `complaints` collects exceptions, console errors and policy violations of everything that was opened.
    """

    def __init__(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        self._context = self._browser.new_context(accept_downloads=True)
        self.page = self._context.new_page()
        self.complaints = list[str]()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)[:400]))
        self.look(width, height, dark=dark)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            self.complaints.append(f"{message.text} {message.location.get('url', '')}"[:400])

    def forgive(self, words: str) -> None:
        """Drop the complaints that say this: the browser logs every refused request."""
        self.complaints[:] = [complaint for complaint in self.complaints if words not in complaint]

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Size of the window, and the colour scheme that the system prefers."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme="dark" if dark else "light")

    def open(self, url: str, ready: str = "main[data-ready]") -> None:
        """Open an address and wait until `ready` (a selector) is there."""
        self.page.goto("about:blank")
        self.page.goto(url)
        self.page.wait_for_selector(ready, state="attached", timeout=30_000)

    def evaluate(self, script: str) -> Any:
        return self.page.evaluate(script)

    def wait(self, condition: str, seconds: float = 20.0) -> None:
        # Not `wait_for_function`: it evaluates text, which the page's own Content-Security-Policy forbids.
        try:
            self.page.wait_for_timeout(0)
            for _ in range(int(seconds * 20)):
                if self.evaluate(f"Boolean({condition})"):
                    return
                self.page.wait_for_timeout(50)
        except Error as error:
            raise AssertionError(f"{condition}: {error}") from error
        raise AssertionError(
            f"never became true: {condition}; complaints: {self.complaints}; text: {self.text()[:800]}"
        )

    def text(self, selector: str = "body") -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        self.page.screenshot(path=path, full_page=whole)

    def axe(self) -> list[str]:
        """Findings of axe-core of serious or critical impact, one line each."""
        self.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
        options = json.dumps({"runOnly": {"type": "tag", "values": AXE_TAGS}, "resultTypes": ["violations"]})
        found = self.evaluate(f"axe.run(document, {options})")["violations"]
        lines = [
            f"{finding['impact']}: {finding['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
            for finding in found
            for node in finding["nodes"]
        ]
        for line in lines:
            print(line)
        return [line for line in lines if line.startswith(SERIOUS)]
