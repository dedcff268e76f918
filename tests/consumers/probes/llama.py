"""llama.cpp: load a GGUF file, logits of token ids, tokens of a text, greedy text. OUT FILE IDS_JSON TEXT [embed]"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from llama_cpp import Llama

out, file, ids, text = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
embed = len(sys.argv) > 5
model = Llama(file, n_ctx=256, n_threads=2, logits_all=not embed, embedding=embed, verbose=False, seed=0)
answer = {"version": version("llama-cpp-python")}
if embed:
    np.savez(out.with_suffix(".npz"), embedding=np.array(model.embed(text)))
else:
    tokens = model.tokenize(text.encode(), add_bos=False)
    model.eval(ids)
    np.savez(out.with_suffix(".npz"), logits=np.array(model.scores[: len(ids)]))
    answer["tokens"] = tokens
    answer["text"] = model.create_completion(text, max_tokens=16, temperature=0)["choices"][0]["text"]
out.with_suffix(".json").write_text(json.dumps(answer))
model.close()
