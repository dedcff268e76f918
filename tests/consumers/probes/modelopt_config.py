"""ModelOpt: quantize by an exported CONFIG, say the width of every enabled weight quantizer. OUT MODEL CONFIG_PY"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

warnings.filterwarnings("ignore")
import modelopt.torch.quantization as mtq  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

out, folder, scope = Path(sys.argv[1]), sys.argv[2], {}
exec(Path(sys.argv[3]).read_text(), scope)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
model = mtq.quantize(model, scope["CONFIG"], lambda m: m(torch.arange(3, 35)[None]))
bits = {}
for name, module in model.named_modules():
    quantizer = getattr(module, "weight_quantizer", None)
    if quantizer is not None and quantizer.is_enabled:
        bits[name] = quantizer.num_bits
out.with_suffix(".json").write_text(json.dumps({"version": version("nvidia-modelopt"), "bits": bits}))
