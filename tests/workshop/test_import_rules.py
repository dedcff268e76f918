"""One direction of imports, and what a process may load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "cvxpy", "ortools", "pulp", "celery", "scipy", "highspy")


def loaded_by(code: str, names: tuple[str, ...], tmp_path: Path) -> list[str]:
    """Which of `names` a fresh process has loaded after `code`."""
    script = f"{code}\nimport sys\nprint('LOADED', *[m for m in {names!r} if m in sys.modules])"
    environment = {**os.environ, "BITWRIGHT_STATE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("LOADED")[2].split()


def test_imports_go_one_way(repository: Path) -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=repository, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_starts_without_anything_heavy(tmp_path: Path) -> None:
    code = (
        "from bitwright.settings import load_settings\n"
        "from service.app import create_app\n"
        "create_app(load_settings()).openapi()"
    )
    assert loaded_by(code, HEAVY, tmp_path) == []


def test_import_bitwright_is_light(tmp_path: Path) -> None:
    assert loaded_by("import bitwright, bitwright.cli", ("numpy", "pydantic", *HEAVY), tmp_path) == []


@pytest.mark.parametrize(
    "module",
    [
        "solvers.catalog",
        "sensitivity.catalog",
        "quantizers.catalog",
        "gpu_kernels.catalog",
        "quantizers.containers.catalog",
    ],
)
def test_listing_a_catalog_imports_nothing_heavy(module: str, tmp_path: Path) -> None:
    assert loaded_by(f"import {module}", HEAVY, tmp_path) == []


CATALOGS = {
    "solvers.catalog": "SOLVERS",
    "sensitivity.catalog": "METRICS",
    "quantizers.catalog": "QUANTIZERS",
    "gpu_kernels.catalog": "LAYOUTS",
    "quantizers.containers.catalog": "CONTAINERS",
    "bitwright.engines.exporters.catalog": "EXPORTERS",
}


@pytest.mark.parametrize("module", CATALOGS)
def test_every_available_member_of_a_catalog_loads(module: str) -> None:
    import importlib

    catalog = getattr(importlib.import_module(module), CATALOGS[module])
    assert len(catalog) > 0
    for entry in catalog:
        assert entry.summary
        if entry.available:
            assert entry.load() is not None
