"""Tiny random models of several families, and prompts, for the tests of rollouts."""

import torch
from transformers import PreTrainedModel

from .tiny_models import tiny_model, tiny_tokenizer

PROMPTS = ["the answer", "a", "über 3 Äpfel, 日本語", "1+2=3; so on. </think> the", "so on"]
END = tiny_tokenizer().eos_token_id
FAMILIES = {"llama": {}, "qwen2": {}, "olmo2": {}, "gpt2": {}, "mistral": {"sliding_window": 12}}


def make_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A random model that ends a text as its tokenizer does."""
    return tiny_model(family, torch.float32, seed, **FAMILIES[family])
