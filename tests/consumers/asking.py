"""Running a probe in the environment of the consumers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-consumers" / "bin" / "python"
PROBES = Path(__file__).parent / "probes"


def ask(probe: str, out: Path, *words: Any, timeout: int = 900, **settings: str) -> dict[str, Any]:
    """What the probe wrote: `out`.json, and the arrays of `out`.npz under `arrays`."""
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2", "TQDM_DISABLE": "1",
        **settings,
    }  # fmt: skip
    command = [str(PYTHON), str(PROBES / f"{probe}.py"), str(out), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{probe}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    answer: dict[str, Any] = json.loads(out.with_suffix(".json").read_text())
    arrays = out.with_suffix(".npz")
    if arrays.is_file():
        with np.load(arrays) as stored:
            answer["arrays"] = dict(stored)
    return answer


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def dense_logits(folder: Path, ids: list[int], weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 (tokens, vocabulary) of the model behind `folder`, some of its tensors replaced."""
    import torch
    import transformers

    from tests.consumers.fused import place

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        place(model, weights)
        return np.asarray(model(torch.tensor([ids])).logits[0].numpy())
