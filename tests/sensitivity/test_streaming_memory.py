"""Reading a model block by block keeps to a limit that the kernel sets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

#: A process that may take so many MiB more than its libraries do, and one batch of images or text.
_CHILD = """
import resource, sys
import numpy as np
import transformers
from bitwright.core.errors import BitwrightError
from bitwright.models import inspect, open_model
from sensitivity.blocks import open_blocks
from sensitivity.data import Calibration, Data
from sensitivity.scoring import score
import sensitivity.fisher
source = open_model(sys.argv[1])
inventory = inspect(source)
open_blocks(source, inventory)
data = Data("images", {"pixel_values": np.random.default_rng(0).standard_normal((16, 1, 16, 16)).astype(np.float32)})
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
limit = held + (int(sys.argv[2]) << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
options = {"stream": sys.argv[3] == "stream"}
options |= {"activation_mib": 16} if options["stream"] else {}
try:
    table = score(source, inventory, ("int4-g64",), calibration=Calibration("images", data, data, data.digest, "test"),
                  samples=1, options=options)
    print("scored", bool((table.loss > 0).all()), inventory.weights)
except BitwrightError as error:
    print(type(error).__name__, error)
"""
#: The checkpoint is 202 MiB in float32, eight blocks of 25.
MORE_MIB = 110


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=768, intermediate_size=2752, num_hidden_layers=8, num_attention_heads=8, image_size=16,
        patch_size=2, num_channels=1, num_labels=10,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("image")
    transformers.ViTForImageClassification(config).half().save_pretrained(folder)
    return folder


def _child(model: Path, how: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(model), str(MORE_MIB), how],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_an_image_model_larger_than_the_limit_is_scored(image_model: Path) -> None:
    """Its batches are as many images as fit, counted by their patches, and so are the gradients held at once."""
    found = _child(image_model, "stream")
    assert found.startswith("scored True"), found
    assert 4 * int(found.split()[-1]) > 1.5 * MORE_MIB * (1 << 20)


def test_in_memory_the_same_limit_is_a_typed_error(image_model: Path) -> None:
    assert _child(image_model, "whole").startswith("OutOfResources")
