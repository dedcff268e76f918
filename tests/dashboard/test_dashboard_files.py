"""The dashboard's files.

Served with their types, self-contained, without inline script or style, no way to inject markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

import pytest

from service.bundle import STYLES
from tests.api.running import Running, assert_problem, running_server

FILES = {
    file.name: file.read_text("utf-8")
    for file in resources.files("service").joinpath("dashboard").iterdir()
    if file.is_file()
}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("dashboard")) as found:
        yield found


def test_index_is_served_at_the_root(server: Running) -> None:
    answer = server.http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == FILES["index.html"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_served_with_its_type_and_revalidates(server: Running, name: str) -> None:
    answer = server.http.get(f"/assets/{name}")
    assert answer.text == FILES[name]
    assert answer.headers["content-type"].startswith(TYPES[name.rpartition(".")[2]])
    assert server.http.get(f"/assets/{name}", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapp.py", "%2e%2e/app.py", "../app.py", "%00"])
def test_nothing_else_is_served(server: Running, name: str) -> None:
    assert_problem(server.http.get(f"/assets/{name}"), 404, "not-found")


def test_page_has_no_inline_script_or_style_and_no_foreign_address() -> None:
    html = FILES["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert all('src="/assets/' in tag for tag in re.findall(r"<script[^>]*>", html))
    for name, text in FILES.items():
        foreign = [url for url in re.findall(r"https?://[^\s\"'`)]+", text) if not url.startswith("http://www.w3.org/")]
        assert not foreign, f"{name} names {foreign}"


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.endswith(".js")))
def test_scripts_never_turn_text_into_markup(name: str) -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|srcdoc", FILES[name]
    )
    assert 'setAttribute("style"' not in FILES[name]


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.endswith(".js")))
def test_every_import_leads_to_a_name_that_is_exported(name: str) -> None:
    for names, source in re.findall(r"import \{([^}]*)\} from \"\./([^\"]+)\"", FILES[name]):
        exported = set(re.findall(r"export (?:async )?(?:function|const|class) (\w+)", FILES[source]))
        wanted = {part.strip() for part in names.split(",") if part.strip()}
        assert wanted <= exported, f"{name} imports {wanted - exported} from {source}"
        body = FILES[name].replace(f"import {{{names}}}", "")
        assert all(re.search(rf"\b{word}\b", body) for word in wanted), f"{name} does not use all of {wanted}"


def test_every_module_is_fetched_at_once_instead_of_one_after_another() -> None:
    preloaded = set(re.findall(r'rel="modulepreload" href="/assets/([^"]+)"', FILES["index.html"]))
    assert preloaded == {name for name in FILES if name.endswith(".js")} - {"app.js", "report.js"}


def test_styles_of_a_report_are_those_of_the_page() -> None:
    assert tuple(re.findall(r'rel="stylesheet" href="/assets/([^"]+)"', FILES["index.html"])) == STYLES
