"""Reading a model block by block keeps to a limit that the kernel sets."""

from __future__ import annotations

import os
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
for how, granularity in (("stream", "tensor"), ("stream", "row"), ("whole", "tensor")):
    options = {"stream": True, "activation_mib": 16} if how == "stream" else {"stream": False}
    try:
        table = score(source, inventory, ("int4-g64",), samples=1, options=options, granularity=granularity,
                      calibration=Calibration("images", data, data, data.digest, "test"))
        print(how, granularity, "scored", bool((table.loss > 0).all()), inventory.weights)
    except BitwrightError as error:
        print(how, granularity, type(error).__name__, error)
"""
#: As above: moments of every block's inputs, then GPTQ of every unit and a checkpoint.
_EXECUTE = """
import resource, sys
from pathlib import Path
import numpy as np
import transformers
from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from bitwright.settings import Settings
from quantizers.arithmetic import arithmetic
from quantizers.containers.catalog import CONTAINERS
from sensitivity.blocks import open_blocks
from sensitivity.data import Calibration, Data
from worker.steps.context import Context
from worker.steps.quantizing import make_quantizer, units_context
source = open_model(sys.argv[1])
inventory = inspect(source)
open_blocks(source, inventory)
arithmetic()
data = Data("images", {"pixel_values": np.random.default_rng(0).standard_normal((4, 1, 16, 16)).astype(np.float32)})
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
limit = held + (int(sys.argv[2]) << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
maker = make_quantizer("gptq", source, inventory, Calibration("images", data, data, data.digest, "test"),
                       Context(Settings(state_dir=Path(sys.argv[3]) / "state")))
CONTAINERS.load("packed").write(
    source, inventory, [parse_format("int4-g64")] * len(inventory.units), Path(sys.argv[3]) / "out", quantizer="gptq",
    context=units_context(maker), context_key=maker.context_key)
moments = sum(path.stat().st_size for path in (Path(sys.argv[3]) / "state").rglob("*.npy"))
print("written", len(inventory.units), 4 * inventory.weights, 2 * moments)
"""
#: The checkpoint is 277 MiB in float32, eleven blocks of 25. However many there are, 110 MiB were just enough on one
#: processor with AVX-512 and too little on another: libraries take some for themselves.
MORE_MIB = 140


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=768, intermediate_size=2752, num_hidden_layers=11, num_attention_heads=8, image_size=16,
        patch_size=2, num_channels=1, num_labels=10,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("image")
    transformers.ViTForImageClassification(config).half().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def said(image_model: Path) -> dict[str, str]:
    """What came of the model under the limit, one way after another in one process."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(image_model), str(MORE_MIB)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    return {f"{how} {granularity}": what for how, granularity, what in lines}


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_an_image_model_larger_than_the_limit_is_scored(said: dict[str, str], granularity: str) -> None:
    """Its batches are as many images as fit, counted by their patches, and so are the gradients held at once."""
    found = said[f"stream {granularity}"]
    assert found.startswith("scored True"), found
    assert 4 * int(found.split()[-1]) > 1.5 * MORE_MIB * (1 << 20)


def test_in_memory_the_same_limit_is_a_typed_error(said: dict[str, str]) -> None:
    assert said["whole tensor"].startswith("OutOfResources"), said


def test_gptq_holds_one_block_and_its_moments(tmp_path: Path) -> None:
    """Neither the model fits the limit nor, three times, what GPTQ must know of its layers."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=104, num_attention_heads=4, image_size=16,
        patch_size=4, num_channels=1, num_labels=10,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).half().save_pretrained(tmp_path)
    more = 64  # of which libraries take some for themselves: with AVX-512 some MiB more than with AVX2
    done = subprocess.run(
        [sys.executable, "-c", _EXECUTE, str(tmp_path), str(more), str(tmp_path)], capture_output=True, text=True,
        check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said, units, weights, moments = done.stdout.split()
    assert (said, int(units)) == ("written", 6 * 104 + 1)
    assert int(weights) > more << 20
    assert int(moments) > 3 * more << 20


def test_linear_algebra_without_memory_is_a_typed_error() -> None:
    """scipy's OpenBLAS asked for ever, numpy's ended the process."""
    code = (
        "import re, resource, quantizers.blas\n"
        "held = int(re.search(r'VmData:\\s+(\\d+)', open('/proc/self/status').read())[1]) << 10\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (held + (10 << 20),) * 2)\n"
        "quantizers.blas.ready()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "OutOfResources: memory ran out before linear algebra" in done.stderr, done.stderr[-500:]
