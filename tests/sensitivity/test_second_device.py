"""Scoring and measuring on another device than the CPU: the same tables, and never a tensor on the wrong side.

The device is that of tests/second_device: torch refuses to mix its tensors with the CPU's, as it does with a GPU's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sensitivity.evaluate import measure
from sensitivity.scoring import score
from tests import devices
from tests.sensitivity.tiny_models import DATA, Opened, calibrated

pytestmark = pytest.mark.skipif(not devices.POSSIBLE, reason=devices.NO_COMPILER)

FORMATS = ("int2-g16", "int4-g16")
STREAM = {"stream": True}
#: (model, metric, options, granularity, most that cells may differ, of the largest one of their row).
ASKED = (
    *(("llama", name, {}, "tensor") for name in (
        "fisher", "weight-mse", "hessian", "kron", "salience", "lrp", "taylor", "fisher-pooled", "hessian-trace",
        "grad-output", "awq-scale", "output-kl",
    )),
    *(("llama", name, STREAM, "tensor") for name in ("fisher", "kron", "salience", "taylor", "output-kl", "lrp")),
    *(("llama", "fisher", STREAM, granularity) for granularity in ("row", "column:16")),
    ("llama", "kl-probe", {"tokens": 64}, "tensor"), ("llama", "linearity", {"tokens": 32, "levels": 2}, "tensor"),
    ("llama", "fisher", {}, "row"), ("llama", "salience", {}, "column:16"), ("llama", "fisher", {"span": 4}, "tensor"),
    ("mixtral", "fisher", {}, "tensor"), ("mixtral", "fisher", STREAM, "tensor"), ("mixtral", "moe", {}, "tensor"),
    ("mixtral", "rank", {"by": "block", "predictor": True}, "tensor"), ("mixtral", "hessian", STREAM, "tensor"),
    ("mixtral", "moe", STREAM, "tensor"),
    ("vit", "fisher", {}, "tensor"), ("vit", "fisher", STREAM, "tensor"), ("vit", "lrp", {}, "tensor"),
    ("bert", "fisher", {}, "tensor"), ("gpt2", "fisher", {}, "tensor"),
)  # fmt: skip
#: Kernels of attention differ between the devices, so sums come out in another order: float32 rounding.
RTOL = 1e-4

_TABLES = """
import json, sys
import numpy as np
from bitwright.models import inspect, open_model
from sensitivity.evaluate import measure
from sensitivity.scoring import score
from tests.sensitivity.test_second_device import asked, quality
folder, out = sys.argv[1:]
tables = {}
for name, path in json.loads(open(folder).read()).items():
    source = open_model(path)
    opened = source, inspect(source)
    tables |= {key: table.loss for key, table in asked(name, opened).items()}
    tables |= {f"{name} measured {stream}": quality(name, opened, stream) for stream in (False, True)}
np.savez(out, **{key.replace("/", "_"): value for key, value in tables.items()})
"""


def asked(name, opened: Opened):
    """Tables of a model, by what was asked."""
    found = {}
    for model, metric, options, granularity in ASKED:
        if model == name:
            found[json.dumps([model, metric, options, granularity])] = score(
                *opened, FORMATS, metric=metric, calibration=calibrated(DATA[name]()), samples=2, seed=3,
                options=options, granularity=granularity,
            )  # fmt: skip
    return found


def quality(name, opened: Opened, stream: bool):
    source, inventory = opened
    plans = {"low": [FORMATS[0]] * len(inventory.units)}
    found = measure(source, inventory, plans, DATA[name](), stream=stream and name != "gpt2")["low"]
    return np.array([found.kl, found.stderr])


def test_tables_and_measurements_are_those_of_the_cpu(tiny: dict[str, Opened], tmp_path: Path) -> None:
    names = sorted({model for model, *_ in ASKED})
    (tmp_path / "models").write_text(json.dumps({name: str(tiny[name][0].path) for name in names}))
    done = subprocess.run(
        [sys.executable, "-c", _TABLES, str(tmp_path / "models"), str(tmp_path / "out.npz")], text=True,
        capture_output=True, timeout=280, check=False, cwd=devices.ROOT, env=devices.environment(devices.SECOND),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    there = np.load(tmp_path / "out.npz")
    seen = 0
    for name in names:
        for key, table in asked(name, tiny[name]).items():
            # output-kl is a difference of two log softmaxes in float32: of its largest cells four digits are known.
            floor = 1e-3 * float(table.loss.max()) if '"output-kl"' in key else 1e-9
            np.testing.assert_allclose(there[key], table.loss, rtol=RTOL, atol=floor, err_msg=key)
            seen += 1
        for stream in (False, True):
            np.testing.assert_allclose(there[f"{name} measured {stream}"], quality(name, tiny[name], stream), rtol=RTOL)
    assert seen == len(ASKED)


_ALONE = """
import sys
import numpy as np
from bitwright.core.errors import OutOfResources
from bitwright.models import inspect, open_model
from sensitivity.data import Calibration, Data
from sensitivity.scoring import score
from second_device import peak
source = open_model(sys.argv[1])
inventory = inspect(source)
data = Data("tokens", {"input_ids": np.arange(32).reshape(2, 16) % 50})
for stream in (True, False):
    try:
        table = score(source, inventory, ("int4-g16",), calibration=Calibration("tokens", data, data, data.digest, ""),
                      samples=1, options={"stream": stream})
        print("scored", peak())
    except OutOfResources as error:
        print("OutOfResources", error)
"""


def test_a_model_larger_than_the_device_is_read_block_by_block(tmp_path: Path) -> None:
    """Eight blocks of 1.5 MiB, 13 MiB in all, where 6 MiB fit: whole it is a typed error."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=128, intermediate_size=512, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "m")
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(tmp_path / "m")], capture_output=True, text=True, timeout=200, check=False,
        cwd=devices.ROOT, env=devices.environment(devices.SECOND, SECOND_DEVICE_BYTES=str(6 << 20)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith("scored"), done.stdout
    assert second.startswith("OutOfResources"), done.stdout
    assert "does not fit on second" in second
