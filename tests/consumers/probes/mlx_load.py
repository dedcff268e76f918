"""MLX on the CPU: dequantized weights of a folder's tensors, and mlx-lm's logits. OUT DIR IDS_JSON"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model

mx.set_default_device(mx.cpu)
out, folder, ids = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
config = json.loads((folder / "config.json").read_text())["quantization"]
base = {"group_size": config["group_size"], "bits": config["bits"]}
arrays = mx.load(str(folder / "model.safetensors"))
found = {}
for name, array in arrays.items():
    module = name.removesuffix(".weight")
    if array.dtype != mx.uint32 or ".experts." in name:  # experts are named otherwise in config.json, once stacked
        continue
    own = next((v for k, v in config.items() if isinstance(v, dict) and k == module), base)
    scales, biases = (arrays[f"{module}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
    dense = mx.dequantize(array, scales, biases, group_size=own["group_size"], bits=own["bits"])
    found[module] = np.array(dense)
model, _ = load_model(folder)
logits = np.array(model(mx.array([ids])).astype(mx.float32))[0]
np.savez(out.with_suffix(".npz"), logits=logits, **found)
out.with_suffix(".json").write_text(json.dumps({"version": version("mlx"), "mlx-lm": version("mlx-lm")}))
