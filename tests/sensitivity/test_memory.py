"""What a control group leaves: both versions' files, written as the kernel writes them."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from bitwright.core.errors import OutOfResources
from sensitivity import memory
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import Opened


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
    assert memory.group_memory() == math.inf
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    versions = {bool(controllers) for _, controllers, _ in groups if not controllers or "memory" in controllers}
    if True in versions:
        _files(tmp_path / "memory", memory._V1, "1000")
        assert memory.group_memory() == 400.0
    else:
        _files(tmp_path / "x", memory._V2, "1000")
        for file in (tmp_path / "x").iterdir():
            file.rename(tmp_path / file.name)
        assert memory.group_memory() == 400.0


@pytest.mark.parametrize(("limit", "mib", "words"), [("AS", 500, "address space"), ("DATA", 90, "data")])
def test_torch_is_not_loaded_where_it_does_not_fit(limit: str, mib: int, words: str, models_dir: Path) -> None:
    """Regression: std::bad_alloc in a library's constructor ended the process, and OpenBLAS asked for ever."""
    code = (
        "import resource, sys; from pathlib import Path; from bitwright.cli import main\n"
        "from sensitivity.memory import _COUNTED, _held\n"
        f"kind = resource.RLIMIT_{limit}; most = int(_held(_COUNTED[kind])) + ({mib} << 20)\n"
        "resource.setrlimit(kind, (most, most))\n"
        "sys.exit(main(['score', sys.argv[1], '--metric', 'weight-mse', '--formats', 'int4-g64']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(models_dir / "llama-stdlib")], capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr[-500:]
    assert f"too little {words}" in done.stderr


@pytest.mark.parametrize("metric", ["weight-mse", "rate-distortion"])
def test_metrics_that_run_no_model_are_not_told_to_use_one_that_runs_none(
    tiny: dict[str, Opened], metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: weight-mse that ran out of memory recommended weight-mse."""

    def full(*_: object, **__: object) -> object:
        raise MemoryError

    monkeypatch.setattr("sensitivity.deltas.quantized_weight", full)
    with pytest.raises(OutOfResources) as error:
        score(*tiny["llama"], ("int4-g32",), metric=metric)
    assert "fewer formats" in str(error.value.hint)
    assert "weight-mse" not in str(error.value.hint)
