"""A tiny MoE and a tiny dense model, with token ids to calibrate on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.sensitivity.tiny_models import VOCABULARY, save_model
from tests.steps.bench import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {name: str(save_model(name, folder / name)) for name in ("llama", "mixtral")}


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A .npz of 16 sequences of 64 token ids."""
    path: Path = tmp_path_factory.mktemp("tokens") / "tokens.npz"
    np.savez(path, input_ids=np.random.default_rng(0).integers(0, VOCABULARY, (16, 64)))
    return str(path)
