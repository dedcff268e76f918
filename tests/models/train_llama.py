"""Train the small Llama test model on the standard library's sources and save it in Hugging Face layout.

Usage: python tests/models/train_llama.py [--steps N] [--out DIR]
"""

import argparse
from pathlib import Path

from stdlib_training import CONTEXT, HERE, VOCAB_SIZE, make_model
from transformers import LlamaConfig, LlamaForCausalLM

# Small batches and many updates: with a budget of minutes the number of updates is what runs out first.
BATCH_SIZE = 4
PEAK_LEARNING_RATE = 2e-3


def llama_config() -> LlamaConfig:
    """Three query heads share each key/value head; every linear layer's input width is a multiple of 64."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--out", type=Path, default=HERE / "llama-stdlib")
    arguments = parser.parse_args()
    make_model(LlamaForCausalLM, llama_config(), arguments.out, arguments.steps, BATCH_SIZE, PEAK_LEARNING_RATE)


if __name__ == "__main__":
    main()
