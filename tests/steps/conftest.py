"""One plan of the trained language model, made once and looked at by many tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.steps.bench import TOKENS, Bench


@pytest.fixture(scope="session")
def llama(models_dir: Path) -> str:
    return str(models_dir / "llama-stdlib")


@pytest.fixture(scope="session")
def text(models_dir: Path) -> str:
    return str(models_dir / "text" / "valid.txt")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, text: str) -> Bench:
    return Bench(tmp_path_factory.mktemp("state"), Path(text))


@pytest.fixture(scope="session")
def planned(bench: Bench, llama: str, text: str) -> dict[str, Any]:
    """The plan of the language model at 3.5 bits per weight."""
    return bench.run("plan", model=llama, budget="3.5bpw", calibration=text, **TOKENS)
