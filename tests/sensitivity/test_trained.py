"""On trained models: predictions of random mixed plans come true within sane bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitwright.models import inspect, open_model
from sensitivity import calibration
from sensitivity.evaluate import measure
from sensitivity.scoring import score

FORMATS = ("int2-g64", "int3-g64", "int4-g64", "int6-g64")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tokens", "low", "high"),
    [("llama-stdlib", 2048, 0.6, 1.5), ("mixtral-stdlib", 1024, 0.5, 2.0), ("vit-digits", 150, 0.3, 3.0)],
)
def test_predicted_and_measured(models_dir: Path, name: str, tokens: int, low: float, high: float) -> None:
    if not (models_dir / name / "model.safetensors").is_file():
        pytest.skip(f"{name} is not trained yet")
    source = open_model(str(models_dir / name))
    inventory = inspect(source)
    data = calibration.load(None, source, inventory, scoring_tokens=tokens, confirming_tokens=tokens)
    table = score(source, inventory, FORMATS, calibration=data)
    rng = np.random.default_rng(0)
    choices = [rng.integers(0, len(FORMATS), len(inventory.units)) for _ in range(2)]
    variants = {str(i): [FORMATS[j] for j in choice] for i, choice in enumerate(choices)}
    measured = measure(source, inventory, variants, data)
    for quality, choice in zip(measured.values(), choices, strict=True):
        predicted = table.loss[np.arange(len(choice)), choice].sum()
        assert low < predicted / quality.kl < high
