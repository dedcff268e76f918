"""BERT and the encoders that share its names (RoBERTa, XLM-R, CamemBERT), with or without a prefix and a head."""

from __future__ import annotations

from bitwright.models.architectures.rules import BIAS, Architecture, Facts, Keep, Linear, heads

PREFIX = r"(?:bert\.|roberta\.)?"
BLOCK = r"(?P<block>" + PREFIX + r"encoder\.layer\.(?P<layer>[0-9]{1,6}))\."
EMBEDDING = "looked up by row, not multiplied; engines keep it in 16 bits"


def is_embedding(facts: Facts) -> bool:
    return facts.task == "embedding"


def _linear(tail: str, **families: str) -> Linear:
    return Linear(BLOCK + tail.replace(".", r"\.") + r"\.weight", tail, families)


BERT = Architecture(
    name="bert",
    model_types=("bert", "roberta", "xlm-roberta", "camembert"),
    bare_task="embedding",
    tied_default=True,
    rules=(
        *(_linear(f"attention.self.{role}", qkv="{block}.attention.qkv") for role in ("query", "key", "value")),
        _linear("attention.output.dense"),
        _linear("intermediate.dense"),
        _linear("output.dense"),
        Keep(PREFIX + r"pooler\.dense\.weight", "pooler", "not on the path of the mean-pooled output", is_embedding),
        Linear(PREFIX + r"pooler\.dense\.weight", "pooler.dense"),
        *heads(
            "classifier",
            "classifier.dense",
            "classifier.out_proj",
            "qa_outputs",
            "cls.predictions.transform.dense",
            "cls.seq_relationship",
        ),
        Linear(r"lm_head\.dense\.weight", "lm_head.dense"),
        Keep(
            r"(?:cls\.predictions|lm_head)\.decoder\.weight",
            "tied_head",
            "a stored copy of the embedding: the config ties the two",
        ),
        Keep(PREFIX + r"embeddings\.position_ids", "index", "integer positions, no weights"),
        Keep(PREFIX + r"embeddings\.position_embeddings\.weight", "position_embedding", EMBEDDING),
        Keep(PREFIX + r"embeddings\.(?:word|token_type)_embeddings\.weight", "embedding", EMBEDDING),
        Keep(
            r".*(?:LayerNorm|layer_norm)\.(?:weight|bias|gamma|beta)",
            "norm",
            "normalization: a vector a layer, sensitive and tiny",
        ),
        BIAS,
    ),
)
