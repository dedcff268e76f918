"""The parser: golden help pages, typed usage errors, nothing heavy loaded."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bitwright.cli import main
from bitwright.cli.parser import GROUPS, build_parser
from tests.goldens import check_golden

COMMANDS = (
    "inspect", "score", "plan", "execute", "evaluate", "export", "diff", "compare-recipes", "report", "plot",
    "preflight", "import", "solve", "verify", "frontier", "serve", "worker", "keys", "formats", "metrics", "solvers",
    "engines", "recipes", "db", "gc",
)  # fmt: skip


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(actions[0].choices)


def test_the_commands_are_the_documented_ones() -> None:
    assert tuple(commands()) == COMMANDS


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays out help differently in other versions")
@pytest.mark.parametrize("name", ["bitwright", *COMMANDS])
def test_help_equals_its_golden_page(name: str, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    parser = build_parser() if name == "bitwright" else commands()[name]
    check_golden(golden / "cli" / f"{name}.txt", parser.format_help())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_with_examples(name: str) -> None:
    text = commands()[name].format_help()
    assert f"  bitwright {name}" in text.split("examples:")[1]
    assert max(len(line) for line in text.splitlines()) <= 110


@pytest.mark.parametrize(
    "words",
    [
        [], ["nonsense"], ["plan"], ["plan", "model"], ["solve"], ["solve", "p.npz", "--time-limit", "soon"],
        ["solve", "p.npz", "--time", "3"], ["evaluate", "m", "--plan", "a", "--checkpoint", "b"],
        ["plan", "m", "--budget", "3bpw", "--granularity", "atom"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_usage_errors_are_typed_and_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--help" in err


def test_usage_errors_with_json_are_problem_documents(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "--json"]) == 2
    problem = json.loads(capsys.readouterr().out)
    assert problem["type"].endswith("/invalid-input")
    assert "PROBLEM" in problem["detail"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import bitwright

    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"bitwright {bitwright.__version__}\n"


HEAVY = ("numpy", "pydantic", "torch", "tqdm", "sqlalchemy", "fastapi", "httpx", "scipy", "highspy")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, bitwright.cli\n"
        "try:\n    bitwright.cli.main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"


def test_every_group_adds_commands() -> None:
    for group in GROUPS:
        holder = argparse.ArgumentParser().add_subparsers()
        __import__(f"bitwright.cli.{group}", fromlist=["add"]).add(holder)
        assert holder.choices
