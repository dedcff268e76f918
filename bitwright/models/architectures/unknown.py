"""Architectures without a table: every 2-D `.weight` that is no embedding becomes a plain linear, and this is said.

Experts that are listed by number are known by that all the same: what differs for mixtures of experts (stand-ins for
experts that no token reaches, no pair terms, an engine's ties) must not depend on a family's having a table.
"""

from __future__ import annotations

from bitwright.models.architectures.llama import is_tied
from bitwright.models.architectures.mixtral import EXPERT_FAMILIES
from bitwright.models.architectures.rules import BIAS, NORM, Architecture, Keep, Linear

ASSUMED = (
    "the architecture '{model_type}' has no table: every 2-D tensor named *.weight is planned as a plain linear of "
    "shape (out, in), except embeddings, routers and a tied head; no families but listed experts are known, so no "
    "other ties are applied; 3-D and other tensors stay as they are. Check the unit list before you rely on the plan."
)
#: The block is the prefix up to the first numbered part after a word that names a list of layers.
_IN_BLOCK = r"(?P<block>(?:[A-Za-z_][\w]*\.)*(?:layers?|blocks?|h)\.(?P<layer>[0-9]{1,6}))\."
_BLOCK = f"(?:{_IN_BLOCK})?"

UNKNOWN = Architecture(
    name="unknown",
    model_types=(),
    assumed=ASSUMED,
    rules=(
        Keep(r"lm_head\.weight", "tied_head", "a stored copy of the embedding: the config ties the two", is_tied),
        Keep(
            r"(?:.*[._])?(?:embed|embeds|embedding|embeddings|embed_tokens|embed_in|embed_positions|wte|wpe|tok_embeddings|shared|"
            r"word_embeddings|position_embeddings|token_type_embeddings|relative_attention_bias)(?:\..*)?",
            "embedding",
            "its name says embedding: looked up by row, not multiplied",
        ),
        Linear(
            _IN_BLOCK + r"(?P<list>.+\.experts)\.(?P<expert>[0-9]{1,6})\.(?P<role>.+)\.weight",
            "{list}.{role}",
            {**EXPERT_FAMILIES, "expert_role": EXPERT_FAMILIES["experts"] + ".{role}"},
        ),
        Keep(r".*\.(?:router|gate)\.weight", "router", "its name says router: an error here changes the route"),
        NORM,
        BIAS,
        Linear(_BLOCK + r"(?P<module>.+)\.weight", "{module}"),
    ),
)
