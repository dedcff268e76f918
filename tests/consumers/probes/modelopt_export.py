"""ModelOpt: quantize by a config, export a Hugging Face checkpoint. OUT MODEL CONFIG_PY DIR"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

warnings.filterwarnings("ignore")
import modelopt.torch.quantization as mtq  # noqa: E402
import torch  # noqa: E402
from modelopt.torch.export import export_hf_checkpoint  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

out, folder, scope, target = Path(sys.argv[1]), sys.argv[2], {}, sys.argv[4]
exec(Path(sys.argv[3]).read_text(), scope)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16).eval()
model = mtq.quantize(model, scope["CONFIG"], lambda m: m(torch.arange(3, 35)[None]))
export_hf_checkpoint(model, export_dir=target)
out.with_suffix(".json").write_text(json.dumps({"version": version("nvidia-modelopt")}))
