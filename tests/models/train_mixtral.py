"""Train the small Mixtral test model on the standard library's sources and save it in Hugging Face layout.

save_pretrained writes the experts under the names Mixtral checkpoints have always had, one matrix per expert
(model.layers.N.block_sparse_moe.experts.E.w1.weight), although the loaded module keeps them stacked.

Usage: python tests/models/train_mixtral.py [--steps N] [--out DIR]
"""

import argparse
from pathlib import Path

import torch
from stdlib_training import CONTEXT, HERE, VOCAB_SIZE, make_model
from transformers import MixtralConfig, MixtralForCausalLM

BATCH_SIZE = 4
PEAK_LEARNING_RATE = 3e-3
EXPERTS = 8
EXPERTS_PER_TOKEN = 2


def mixtral_config() -> MixtralConfig:
    """Eight experts, two per token, with the auxiliary loss that evens out their use.

    transformers averages that loss over the layers, so it evens out expert e of all layers taken together; within
    one layer a few experts may still get next to no tokens. expert_facts shows how it came out.
    """
    return MixtralConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=EXPERTS,
        num_experts_per_tok=EXPERTS_PER_TOKEN,
        initializer_range=0.06,  # near 1/sqrt(hidden_size); the usual 0.02 is meant for wider models
        output_router_logits=True,  # without it the auxiliary loss is not added; make_model turns it off on saving
        router_aux_loss_coef=0.02,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )


@torch.no_grad()
def expert_facts(model: MixtralForCausalLM, stream: torch.Tensor) -> dict[str, str]:
    """Say how evenly the experts of each layer are used: an even share would be 0.125."""
    rows = min(64, len(stream) // CONTEXT)
    window = stream[: rows * CONTEXT].view(rows, CONTEXT)
    facts = {}
    for layer, logits in enumerate(model(input_ids=window, output_router_logits=True, use_cache=False).router_logits):
        chosen = logits.topk(EXPERTS_PER_TOKEN, dim=-1).indices.flatten()
        shares = torch.bincount(chosen, minlength=EXPERTS) / len(chosen)
        facts[f"expert shares, layer {layer}"] = " ".join(f"{share:.3f}" for share in shares.tolist())
    return facts


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=HERE / "mixtral-stdlib")
    arguments = parser.parse_args()
    make_model(
        MixtralForCausalLM,
        mixtral_config(),
        arguments.out,
        arguments.steps,
        BATCH_SIZE,
        PEAK_LEARNING_RATE,
        expert_facts,
    )


if __name__ == "__main__":
    main()
