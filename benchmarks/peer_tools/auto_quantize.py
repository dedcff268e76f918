"""ModelOpt's own auto_quantize on given tokens: the width of every layer at each target, and what scoring cost.

Runs in .venv-peers (`make peers`):  python auto_quantize.py MODEL ITEMS.npz OUT.json BITS,BITS,...

Six custom INT configurations (block 64, affine: a bias from the least and largest weight), since the tool's presets
stop at INT4. Its accounting counts code bits alone. The scores are kept in the tool's own checkpoint and read again for
further targets, so the first target's time is that of scoring. The gradient method (its default) on the data's labels:
the next tokens, or an image's class. Items: `input_ids`, or `pixel_values` and `labels`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

warnings.filterwarnings("ignore")
import modelopt.torch.quantization as mtq  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForImageClassification  # noqa: E402

WIDTHS, GROUP, BATCH = (2, 3, 4, 5, 6, 8), 64, 8


def config(width: int) -> dict:  # type: ignore[type-arg]
    quantizer = {
        "num_bits": width, "block_sizes": {-1: GROUP}, "bias": {-1: GROUP, "type": "static", "method": "max_min"},
    }  # fmt: skip
    return {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer*", "cfg": quantizer},
            {"quantizer_name": "*weight_quantizer*", "enable": True},
        ],
        "algorithm": "max",
    }


def widths(model: torch.nn.Module) -> dict[str, int]:
    found = {}
    for name, module in model.named_modules():
        quantizer = getattr(module, "weight_quantizer", None)
        if quantizer is not None:
            found[name] = int(quantizer.num_bits) if quantizer.is_enabled else 16
        many = getattr(module, "gate_up_proj_weight_quantizers", None)
        if many is not None:
            found[name] = int(many[0].num_bits) if many[0].is_enabled else 16
    return found


def stored_names(model: torch.nn.Module, folder: str) -> dict[str, str]:
    """Module -> its name in the checkpoint: transformers may call a layer otherwise, but its weights are the same."""
    stored = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            stored[(tuple(tensor.shape), tensor.float().numpy().tobytes())] = name.removesuffix(".weight")
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            weight = module.weight.detach().float().numpy()
            found[name] = stored.get((weight.shape, weight.tobytes()), name)
    return found


def batches_of(items: dict[str, np.ndarray]) -> list[dict[str, torch.Tensor]]:
    tensors = {name: torch.from_numpy(array) for name, array in items.items()}
    if "labels" not in tensors:
        tensors["labels"] = tensors["input_ids"]
    count = len(tensors["labels"])
    return [{name: t[i : i + BATCH] for name, t in tensors.items()} for i in range(0, count, BATCH)]


def main() -> None:
    folder, out = sys.argv[1], Path(sys.argv[3])
    batches = batches_of(dict(np.load(sys.argv[2])))
    kind, extra = AutoModelForCausalLM, {"use_cache": False}
    if "pixel_values" in batches[0]:
        kind, extra = AutoModelForImageClassification, {}
    checkpoint = str(Path(tempfile.mkdtemp(prefix="modelopt-")) / "scores.pth")
    found, seconds, used = {}, {}, {}
    for bits in [float(text) for text in sys.argv[4].split(",")]:
        model = kind.from_pretrained(folder, dtype=torch.float32).eval()
        names = stored_names(model, folder)
        start, wall = time.process_time(), time.monotonic()
        model, state = mtq.auto_quantize(
            model, constraints={"effective_bits": bits}, quantization_formats=[config(width) for width in WIDTHS],
            data_loader=batches, forward_step=lambda m, batch: m(**batch, **extra),
            loss_func=lambda output, batch: output.loss, num_calib_steps=1, num_score_steps=len(batches),
            checkpoint=checkpoint,
        )  # fmt: skip
        seconds[str(bits)] = [time.process_time() - start, time.monotonic() - wall]
        found[str(bits)] = {names.get(name, name): width for name, width in widths(model).items()}
        used[str(bits)] = float(state["best"]["constraints"]["effective_bits"])
    out.write_text(
        json.dumps({"version": version("nvidia-modelopt"), "plans": found, "seconds": seconds, "said": used})
    )


if __name__ == "__main__":
    main()
