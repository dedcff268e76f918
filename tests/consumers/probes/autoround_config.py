"""AutoRound: quantize a model by a layer_config (round to nearest), say each module's width. OUT MODEL CONFIG_JSON"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

warnings.filterwarnings("ignore")
from auto_round import AutoRound  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

out, folder, config = Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
rounder = AutoRound(
    model, AutoTokenizer.from_pretrained(folder), scheme="W4A16", layer_config=config, group_size=32, iters=0,
    nsamples=2, seqlen=16, batch_size=1, device_map="cpu", dataset=["def read(self, path):\n" * 20] * 4,
)  # fmt: skip
target = out.parent / (out.name + "-made")
rounder.quantize_and_save(str(target), format="auto_round")
place = target if (target / "config.json").exists() else next(p.parent for p in target.rglob("config.json"))
answer = {
    "version": version("auto-round"),
    "config": json.loads((place / "config.json").read_text())["quantization_config"],
}
answer["folder"] = str(place)
out.with_suffix(".json").write_text(json.dumps(answer, default=str))
