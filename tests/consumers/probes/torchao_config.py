"""torchao: quantize_ by an exported `config`, say the type of every weight. OUT MODEL CONFIG_PY"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

warnings.filterwarnings("ignore")
import torch  # noqa: E402
from torchao.quantization import quantize_  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

out, folder, scope = Path(sys.argv[1]), sys.argv[2], {}
exec(Path(sys.argv[3]).read_text(), scope)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
quantize_(model, scope["config"], filter_fn=None)
kinds = {}
for name, module in model.named_modules():
    weight = getattr(module, "weight", None)
    if weight is not None and hasattr(weight, "target_dtype"):
        kinds[name] = str(weight.target_dtype)
out.with_suffix(".json").write_text(json.dumps({"version": version("torchao"), "kinds": kinds}))
