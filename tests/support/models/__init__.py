"""Tiny random models: of a few families with tokenizers, of any kind that transformers has, and as GGUF files."""
