"""A SentencePiece BPE model trained on a text, and how it splits another. OUT TEXT_FILE VOCABULARY TEXTS"""

import json
import sys
from pathlib import Path

import sentencepiece

out, corpus, size, texts = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
sentencepiece.SentencePieceTrainer.train(
    input=corpus, model_prefix=str(out), vocab_size=size, model_type="bpe", byte_fallback=True, minloglevel=2,
    normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
)  # fmt: skip
model = sentencepiece.SentencePieceProcessor(model_file=f"{out}.model")
answer = {"version": sentencepiece.__version__, "ids": [[model.bos_id(), *model.encode(text)] for text in texts]}
out.with_suffix(".json").write_text(json.dumps(answer))
