"""Resident memory of `execute`: at most 3 x the largest tensor and 512 MiB, whatever the format and the container."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from quantizers.containers.tensorfile import TensorSpec, lay_out

ROOT = Path(__file__).parents[2]
SHAPE, MIB = (16384, 8192), 256
NAME = "model.layers.0.mlp.up_proj.weight"
#: Runs in a process of its own, whose VmHWM begins at zero.
_CHILD = """
import re, sys
from pathlib import Path
from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
source = open_model(sys.argv[1])
inventory = inspect(source)
formats = [parse_format(sys.argv[3])] * len(inventory.units)
CONTAINERS.load(sys.argv[2]).write(source, inventory, formats, Path(sys.argv[4]))
print(len(inventory.units), re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with one linear layer of 256 MiB in bfloat16."""
    folder = tmp_path_factory.mktemp("large")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": SHAPE[1],
        "intermediate_size": SHAPE[0], "num_hidden_layers": 1, "num_attention_heads": 64, "vocab_size": 32,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    layout = lay_out("model.safetensors", [TensorSpec(NAME, "BF16", SHAPE)], {"format": "pt"})
    piece = np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32).view(np.uint32) >> 16
    with (folder / layout.name).open("wb") as file:
        file.write(layout.header)
        for _ in range(SHAPE[0] * SHAPE[1] >> 20):
            file.write(piece.astype(np.uint16).tobytes())
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
@pytest.mark.parametrize(
    ("container", "name"),
    [
        ("packed", "int4-g64"), ("packed", "int4-tensor"), ("packed", "bf16"), ("packed", "nf4"),
        ("compressed-tensors", "int4-sym-g64"),
    ],
)  # fmt: skip
def test_three_times_the_largest_tensor_and_half_a_gibibyte_are_enough(
    container: str, name: str, model: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(model), container, name, str(tmp_path / "out")], cwd=ROOT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    units, peak = map(int, done.stdout.split())
    assert units == 1
    assert peak / 1024 <= 3 * MIB + 512, f"{peak // 1024} MiB"
