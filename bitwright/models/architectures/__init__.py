"""The table of known architectures: one file a family, one line here. Anything else is planned as plain linears."""

from bitwright.models.architectures.bert import BERT
from bitwright.models.architectures.deepseek import DEEPSEEK
from bitwright.models.architectures.gpt2 import GPT2
from bitwright.models.architectures.gpt_neox import GPT_NEOX
from bitwright.models.architectures.llama import LLAMA
from bitwright.models.architectures.mixtral import MIXTRAL
from bitwright.models.architectures.opt import OPT
from bitwright.models.architectures.qwen3_moe import QWEN3_MOE
from bitwright.models.architectures.rules import Architecture, Facts, Keep, Linear, Match
from bitwright.models.architectures.unknown import UNKNOWN
from bitwright.models.architectures.vit import VIT

ARCHITECTURES: tuple[Architecture, ...] = (LLAMA, MIXTRAL, QWEN3_MOE, DEEPSEEK, GPT2, GPT_NEOX, OPT, BERT, VIT)


def find(model_type: str) -> Architecture:
    """The architecture that knows this `model_type`, else UNKNOWN."""
    return next((a for a in ARCHITECTURES if model_type in a.model_types), UNKNOWN)


__all__ = ["ARCHITECTURES", "UNKNOWN", "Architecture", "Facts", "Keep", "Linear", "Match", "find"]
