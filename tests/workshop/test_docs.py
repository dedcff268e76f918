"""What the documents show is what happens."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bitwright.cli import main
from bitwright.core import problem_file
from bitwright.core.errors import error_classes
from solvers.catalog import SOLVERS


def blocks(path: Path, language: str) -> list[str]:
    """Fenced code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)


def test_the_problem_example_gives_the_shown_solution(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = repository / "docs" / "problem.md"
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page, "python")[0], page.name, "exec"), {})
    assert main(["solve", "problem.npz", "--out", "solution.json", "--json"]) == 0
    solved = json.loads(capsys.readouterr().out)
    shown = json.loads(blocks(page, "json")[0])
    assert solved["choice"] == shown["choice"]
    assert solved["loss"] == shown["loss"]
    assert solved["certificate"]["status"] == shown["certificate"]["status"]
    assert solved["certificate"]["cost"] == shown["certificate"]["cost"]
    assert main(["verify", "solution.json", "--problem", "problem.npz"]) == 0


def test_the_examples_of_the_solvers_run_and_every_solver_is_named(repository: Path) -> None:
    page = repository / "docs" / "solvers.md"
    scope: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), scope)
    assert scope["solution"].solver == "fusion"  # type: ignore[attr-defined]
    assert [name for name in SOLVERS.names() if f"`{name}`" not in page.read_text("utf-8")] == []


def test_every_array_of_a_problem_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "problem.md").read_text("utf-8")
    assert [name for name in problem_file._KNOWN if f"`{name}`" not in text] == []


def test_the_command_line_page_lists_the_exit_codes(repository: Path) -> None:
    text = (repository / "docs" / "cli.md").read_text("utf-8")
    codes = {0} | {cls.exit_code for cls in error_classes().values()}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == codes


def test_links_between_documents_lead_somewhere(repository: Path) -> None:
    broken = []
    for page in [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text("utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(repository)}: {target}")
    assert broken == []
