"""SECURITY.md promises nothing that no test holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def test_every_threat_names_a_test_that_is_there(repository: Path) -> None:
    page = (repository / "SECURITY.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]
    threats = [row for row in rows if not set(row[0]) <= set("|- ")]
    assert len(threats) >= 18
    for row in threats:
        found = re.fullmatch(r"`([a-z_/]+\.py)::(test_[a-z_0-9]+)` \|", row[-1])
        assert found, f"the row names no test: {row[0]}"
        path = repository / "tests" / found[1]
        names = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        assert found[2] in names, f"{found[1]} has no {found[2]}"
