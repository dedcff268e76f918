"""GGUF files for llama.cpp: one file a model, a ggml type a tensor, tokenizer and metadata inside."""
