"""Rules of the source tree: sizes, docstrings, forbidden words, and the public names."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bitwright", "gpu_kernels", "quantizers", "sensitivity", "service", "solvers", "worker")
#: Lines a file may have.
SOURCE_LINES, TEST_LINES = 400, 500
#: Exceptions: file, its own cap, and a comment that says why.
LONGER_FILES: dict[str, int] = {}
#: Lines a function may have.
FUNCTION_LINES = 60


@cache
def tracked() -> tuple[Path, ...]:
    """Files under version control and those that would be, as git sees them; without git, those in the folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode == 0:
        names = [ROOT / name for name in done.stdout.decode().split("\0") if name]
        return tuple(path for path in names if path.is_file())
    return tuple(
        path for folder in (*PACKAGES, "tests", "docs") for path in (ROOT / folder).rglob("*") if path.is_file()
    )


def python_files(*folders: str) -> Iterator[Path]:
    for path in tracked():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders:
            yield path


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_stay_small() -> None:
    too_long = []
    for path in python_files(*PACKAGES, "tests", "tools", "demo", "benchmarks"):
        cap = TEST_LINES if name(path).startswith("tests/") else SOURCE_LINES
        lines = len(path.read_text("utf-8").splitlines())
        if lines > LONGER_FILES.get(name(path), cap):
            too_long.append(f"{name(path)}: {lines}")
    assert too_long == []


def test_functions_stay_small() -> None:
    too_long = []
    for path in python_files(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    too_long.append(f"{name(path)}:{node.lineno} {node.name}: {lines}")
    assert too_long == []


def test_every_module_says_what_it_is() -> None:
    silent = [name(p) for p in python_files(*PACKAGES) if not ast.get_docstring(ast.parse(p.read_text("utf-8")))]
    assert [path for path in silent if (ROOT / path).stat().st_size > 0] == []


def _public_functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node


def test_public_functions_of_the_face_are_documented() -> None:
    undocumented = [
        f"{name(path)}: {node.name}"
        for path in (
            ROOT / "bitwright" / "face.py",
            ROOT / "solvers" / "__init__.py",
            *sorted((ROOT / "bitwright" / "core").glob("*.py")),
        )
        for node in _public_functions(path)
        if not ast.get_docstring(node) and node.end_lineno is not None and node.end_lineno - node.lineno > 8
    ]
    assert undocumented == []


UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError|except[^:]*:\s*pass\s*$", re.MULTILINE)


def test_nothing_is_left_for_later() -> None:
    found = []
    for path in python_files(*PACKAGES, "tools", "demo"):
        found += [f"{name(path)}: {match[0]!r}" for match in UNFINISHED.finditer(path.read_text("utf-8"))]
    assert found == []


#: Paths of somebody's machine. Written in pieces, so that this file does not hold them.
MACHINE = re.compile(
    "|".join(("/" + "work/", "/" + "root/", "/" + r"home/\w+/", "/" + r"Users/\w+/", "/" + "opt/pypi"))
)
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".yml", ".yaml", ".sh", ".html", ".css", ".js", ".cpp", ".h", ".cu", ""}
#: Training text is other people's source code.
FOREIGN = ("tests/models/", "tests/golden/foreign")


def test_no_path_of_a_machine_is_in_a_file() -> None:
    found = []
    for path in tracked():
        if path.suffix in TEXT and not name(path).startswith(FOREIGN) and path.stat().st_size < 2**20:
            match = MACHINE.search(path.read_text("utf-8", "replace"))
            if match:
                found.append(f"{name(path)}: {match[0]}")
    assert found == []


def test_spelling_of_states_is_british() -> None:
    american = re.compile(r"[\"'](canceled|canceling)[\"']")
    found = [name(p) for p in python_files(*PACKAGES) if american.search(p.read_text("utf-8"))]
    assert found == []


DOCUMENTED_FACE = {
    "inspect",
    "score",
    "plan",
    "load_problem",
    "solve",
    "verify",
    "frontier",
    "execute",
    "evaluate",
    "export",
}


def test_the_face_has_exactly_the_documented_names() -> None:
    import bitwright

    assert bitwright.__all__ == ["__version__", *sorted(set(bitwright.__all__) - {"__version__"})]
    assert set(bitwright.__all__) >= DOCUMENTED_FACE
    for public in bitwright.__all__:
        assert getattr(bitwright, public) is not None
    with pytest.raises(AttributeError):
        bitwright.nonsense  # noqa: B018


def test_pins_are_exact() -> None:
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][^+\s]*", line)] == []
    assert len({line.partition("==")[0] for line in pins}) == len(pins)
