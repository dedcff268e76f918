"""llama.cpp, low level, for files without a tokenizer: logits of token ids. OUT FILE IDS_JSON"""

import json
import sys
from pathlib import Path

import llama_cpp as lc
import numpy as np

out, file, ids = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
lc.llama_backend_init()
quiet = lc.llama_log_callback(lambda level, text, user: None)
lc.llama_log_set(quiet, None)
model = lc.llama_model_load_from_file(file.encode(), lc.llama_model_default_params())
assert model, "the file does not load"
settings = lc.llama_context_default_params()
settings.n_ctx = settings.n_batch = settings.n_ubatch = 256
settings.n_threads = settings.n_threads_batch = 2
context = lc.llama_init_from_model(model, settings)
batch = lc.llama_batch_init(len(ids), 0, 1)
batch.n_tokens = len(ids)
for j, token in enumerate(ids):
    batch.token[j], batch.pos[j], batch.n_seq_id[j], batch.logits[j] = token, j, 1, 1
    batch.seq_id[j][0] = 0
assert lc.llama_decode(context, batch) == 0
size = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
logits = [np.ctypeslib.as_array(lc.llama_get_logits_ith(context, j), (size,)).copy() for j in range(len(ids))]
np.savez(out.with_suffix(".npz"), logits=np.stack(logits))
out.with_suffix(".json").write_text(json.dumps({"vocabulary": size}))
