"""A full disk and a killed process, for every container, by a process of its own that meets them for real.

A full disk leaves nothing behind and says what to do; a killed writer leaves a hidden folder from which the next one
goes on where it stood, to the same bytes.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bitwright.core.errors import OutOfResources
from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from quantizers.containers import writer
from quantizers.containers.catalog import CONTAINERS
from tests.containers.test_containers import MIXES, WHOLE
from tests.containers.test_gguf import MENU, mix
from tests.containers.toy import toy
from tests.models_inspect.checkpoints import LAYOUTS, SIZES, write

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("name", [*MIXES, "gguf"])
#: Groups written before the writer is killed, of the ten or more that each model has.
KILLED_AFTER = 3


def given(folder: Path, name: str) -> tuple[Any, Any, list[Any]]:
    """(source, inventory, formats) of a small model that the container holds."""
    if name == "gguf":
        config, shapes = LAYOUTS["mixtral-listed"]
        place = folder / "model"
        source = open_model(str(place if place.is_dir() else write(place, ({**SIZES, **config}, shapes))))
        inventory = inspect(source)
        return source, inventory, mix(inventory, MENU)
    shapes_ = {f"{prefix}.{key}": shape for prefix in ("x", "y") for key, shape in WHOLE.items()}
    toy_source, inventory = toy(folder / "model", shapes_)
    return toy_source, inventory, [parse_format(text) for text in (*MIXES[name], *MIXES[name])]


def write_cut_short(folder: Path, name: str, how: str) -> None:
    """Runs in a process of its own: killed after some groups, or with files that cannot grow."""
    import os

    source, inventory, formats = given(folder, name)
    done: list[str] = []

    def progress(stage: str, fraction: float, message: str) -> None:
        done.append(message)
        if how == "kill" and len(done) == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    if how == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    try:
        CONTAINERS.load(name).write(source, inventory, formats, folder / "out", progress=progress)
    except OutOfResources as error:
        print("typed", error.hint)


def run(folder: Path, name: str, how: str) -> subprocess.CompletedProcess[str]:
    words = f"from tests.containers.test_cut_short import *; write_cut_short(Path({str(folder)!r}), {name!r}, {how!r})"
    return subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False, cwd=ROOT)


@EVERY
def test_a_full_disk_leaves_nothing(name: str, tmp_path: Path) -> None:
    given(tmp_path, name)
    done = run(tmp_path, name, "full")
    assert done.stdout.startswith("typed free disk space"), done.stderr[-500:]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 4.00 GiB"), RuntimeError("can't start new thread"), RuntimeError("a bug")]
)
def test_memory_that_ran_out_is_told_and_gone_on_after(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a library these were Python's own errors; jobs told them already."""
    source, inventory, formats = given(tmp_path, "packed")
    container, real, calls = CONTAINERS.load("packed"), writer.make_group, list[int]()

    def group(request: Any, index: int, *rest: Any) -> Any:
        calls.append(index)
        if len(calls) == 3:
            raise error
        return real(request, index, *rest)

    monkeypatch.setattr(writer, "make_group", group)
    with pytest.raises(RuntimeError if str(error) == "a bug" else OutOfResources):
        container.write(source, inventory, formats, tmp_path / "out")
    report = container.write(source, inventory, formats, tmp_path / "out")
    assert len(calls) < 3 + len(inventory.units) + len(inventory.rest), "what was done is not done again"
    fresh = container.write(source, inventory, formats, tmp_path / "fresh")
    assert all((report.path / name).read_bytes() == (fresh.path / name).read_bytes() for name in report.files)


@EVERY
def test_a_killed_writer_is_gone_on_with(name: str, tmp_path: Path) -> None:
    source, inventory, formats = given(tmp_path, name)
    done = run(tmp_path, name, "kill")
    assert done.returncode == -signal.SIGKILL, done.stderr[-500:]
    assert (tmp_path / ".out.partial").is_dir()
    assert not (tmp_path / "out").exists()
    again: list[str] = []
    container = CONTAINERS.load(name)
    report = container.write(
        source, inventory, formats, tmp_path / "out", progress=lambda s, f, m: again.append(m) if s == "write" else None
    )
    assert len(again) == len(inventory.units) + len(inventory.rest) - KILLED_AFTER, "what was done is not done again"
    fresh = container.write(source, inventory, formats, tmp_path / "fresh")
    for file in report.files:
        assert (report.path / file).read_bytes() == (fresh.path / file).read_bytes(), file
