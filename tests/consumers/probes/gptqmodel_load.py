"""GPTQModel on the CPU: widths, dequantized weights (in, out transposed back) and logits. OUT DIR IDS"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from gptqmodel import BACKEND, GPTQModel

out, folder, ids = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
backend = BACKEND.GPTQ_TORCH if hasattr(BACKEND, "GPTQ_TORCH") else BACKEND.TORCH
model = GPTQModel.load(folder, device="cpu", backend=backend, dtype=torch.bfloat16).model
weights, bits = {}, {}
for name, module in model.named_modules():
    if hasattr(module, "qweight") and hasattr(module, "dequantize_weight"):
        weights[name] = module.dequantize_weight().float().T.contiguous().numpy()
        bits[name] = int(module.bits)
with torch.no_grad():
    weights["logits"] = model(torch.tensor([ids])).logits[0].float().numpy()
np.savez(out.with_suffix(".npz"), **weights)
out.with_suffix(".json").write_text(json.dumps({"version": version("gptqmodel"), "bits": bits}))
