"""What a control group leaves: both versions' files, written as the kernel writes them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sensitivity import memory


def _files(folder: Path, names: tuple[str, str, str], limit: str) -> None:
    folder.mkdir(parents=True)
    (folder / names[0]).write_text(limit + "\n")
    (folder / names[1]).write_text("900\n")
    (folder / "memory.stat").write_text(f"anon 500\n{names[2]} 300\n")


@pytest.mark.parametrize(("limit", "left"), [("1000", 400.0), ("max", math.inf), ("800", 200.0), ("500", 0.0)])
def test_pages_that_the_kernel_would_drop_count_as_free(tmp_path: Path, limit: str, left: float) -> None:
    _files(tmp_path / "g", memory._V2, limit)
    assert memory._left(tmp_path / "g", *memory._V2) == left


def test_the_group_of_this_process_is_found_in_either_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the path of version 1 is the host's: the limit lies at the root of the tree that it sees."""
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert memory._group_memory() == math.inf
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    versions = {bool(controllers) for _, controllers, _ in groups if not controllers or "memory" in controllers}
    if True in versions:
        _files(tmp_path / "memory", memory._V1, "1000")
        assert memory._group_memory() == 400.0
    else:
        _files(tmp_path / "x", memory._V2, "1000")
        for file in (tmp_path / "x").iterdir():
            file.rename(tmp_path / file.name)
        assert memory._group_memory() == 400.0
