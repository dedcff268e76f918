"""AutoRound's own AutoScheme on given tokens: the width of every layer at each target, and what scoring cost.

Runs in .venv-peers (`make peers`):  python auto_scheme.py MODEL ITEMS.npz OUT.json BITS,BITS,...  [low]

The tool is used as its users do (`AutoRound(scheme=AutoScheme(...))`), with six asymmetric INT schemes of group 64. Its
accounting counts a 16-bit scale and a zero point of the code's width a group, so a target of b code bits is given to it
as b + (16 + b) / 64. The one thing replaced is where the calibration batches come from: the tokens given here. Scores
are kept by the tool in a folder and read again for further targets, so the first target's time is that of scoring.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ["AR_AUTO_SCHEME_CACHE"] = tempfile.mkdtemp(prefix="autoscheme-")
os.environ["AR_ALLOW_W8_ASYM"] = "1"  # otherwise 8-bit options become symmetric

import auto_round  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from auto_round import AutoRound, AutoScheme  # noqa: E402
from auto_round.auto_scheme import delta_loss  # noqa: E402
from auto_round.schemes import QuantizationScheme  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

WIDTHS, GROUP = (2, 3, 4, 5, 6, 8), 64


def loader(tokens: np.ndarray, batch: int):  # type: ignore[no-untyped-def]
    ids = torch.from_numpy(tokens)
    return [
        {"input_ids": ids[i : i + batch], "attention_mask": torch.ones_like(ids[i : i + batch])}
        for i in range(0, len(ids), batch)
    ]


def main() -> None:
    folder, tokens, out = sys.argv[1], np.load(sys.argv[2])["input_ids"], Path(sys.argv[3])
    targets = [float(text) for text in sys.argv[4].split(",")]
    low = len(sys.argv) > 5
    delta_loss.get_dataloader = lambda tokenizer, seqlen, **kwargs: loader(tokens, kwargs.get("bs", 8))
    found, seconds = {}, {}
    for bits in targets:
        schemes = [
            QuantizationScheme(bits=width, group_size=GROUP, sym=False, data_type="int", act_bits=16)
            for width in WIDTHS
        ]
        scheme = AutoScheme(
            avg_bits=bits + (16 + bits) / GROUP, options=schemes, nsamples=len(tokens), seqlen=tokens.shape[1],
            low_gpu_mem_usage=low,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        rounder = AutoRound(
            model, AutoTokenizer.from_pretrained(folder), scheme=scheme, iters=0, nsamples=len(tokens),
            seqlen=tokens.shape[1], device_map="cpu", quant_lm_head=True, enable_torch_compile=False,
        )  # fmt: skip
        start, wall = time.process_time(), time.monotonic()
        rounder.post_init()
        seconds[str(bits)] = [time.process_time() - start, time.monotonic() - wall]
        found[str(bits)] = {name: int(config["bits"]) for name, config in rounder.layer_config.items()}
    out.write_text(json.dumps({"version": auto_round.__version__, "plans": found, "seconds": seconds}))


if __name__ == "__main__":
    main()
