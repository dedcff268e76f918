"""What every test shares: Hypothesis profiles, offline hub, single-threaded numerics, and paths."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Before any numeric library loads: results and run times then do not depend on the machine's core count.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("COLUMNS", "100")

import pytest
from hypothesis import HealthCheck, settings

# No deadline, and no check of how long drawing takes: shared machines pause at will, and a pause is not a failure.
_UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=40, **_UNTIMED)
settings.register_profile("ci", max_examples=40, derandomize=True, print_blob=True, **_UNTIMED)
settings.register_profile("nightly", max_examples=2000, **_UNTIMED)
#: 160 examples a claim take about ten minutes of one core.
_SWEEP = int(os.environ.get("BITWRIGHT_TEST_EXAMPLES", "160"))
settings.register_profile("sweeps", max_examples=_SWEEP, print_blob=True, **_UNTIMED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: no worker waits at the end for another's long test."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Top folder of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden files; `BITWRIGHT_UPDATE_GOLDEN=1` rewrites them."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder of the small trained models."""
    return ROOT / "tests" / "models"


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings of the person who runs the tests, or of another test, must not change what is tested."""
    for name in [n for n in os.environ if n.startswith("BITWRIGHT_") and not n.startswith("BITWRIGHT_TEST_")]:
        if name != "BITWRIGHT_UPDATE_GOLDEN":
            monkeypatch.delenv(name)
    _forget_settings()
    yield
    _forget_settings()


def _forget_settings() -> None:
    """Settings are read once a process; a test that changes the environment reads them anew."""
    module = sys.modules.get("bitwright.settings")
    if module is not None:
        module.load_settings.cache_clear()
