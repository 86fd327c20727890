"""Tiny Hugging Face models and a tiny tokenizer, made on the spot."""

from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TEXT = (
    "Question: what is 12 + 34? The answer is 46. <think> Twelve and thirty-four make forty-six. </think> "
    "<answer> 46 </answer> Some words more, so that the merges have something to work on."
)


def byte_level_bpe(texts: list[str], special: list[str]) -> Tokenizer:
    """320 tokens: the special ones, all bytes, and merges of these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings = {"special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=320, **settings))
    return tokenizer


@cache
def tiny_tokenizer(pad_token: str | None = "<pad>") -> PreTrainedTokenizerFast:
    """Byte-level BPE with a beginning-of-sequence token that it adds by itself when asked for special tokens."""
    tokenizer = byte_level_bpe([TEXT] * 3, ["<bos>", "<eos>", "<pad>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token=pad_token
    )


def tiny_model(
    model_type: str = "qwen2", dtype: torch.dtype = torch.float64, seed: int = 0, **settings
) -> torch.nn.Module:
    """A causal language model of two layers with random weights, large enough to make its predictions uneven."""
    if model_type == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    else:
        shape = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
        }
        if model_type not in ("gpt_neox",):
            shape["num_key_value_heads"] = 2
    torch.manual_seed(seed)
    tokens = {"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1}
    config = AutoConfig.for_model(model_type, vocab_size=320, **(shape | tokens | settings))
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model
