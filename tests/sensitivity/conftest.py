"""Fixtures of the sensitivity tests."""

from __future__ import annotations

import pytest

from bitwright.models import inspect, open_model
from tests.sensitivity.tiny_models import BUILDERS, Opened, save_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Opened]:
    """Name -> (source, inventory)."""
    opened = {}
    for name in BUILDERS:
        source = open_model(str(save_model(name, tmp_path_factory.mktemp(name))))
        opened[name] = source, inspect(source)
    return opened
