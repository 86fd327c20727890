"""Models for the tests of evaluation: one of random weights, and one that answers by the last token it reads."""

import copy

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from cs336_alignment.policy import save_policy

from .tiny_models import tiny_model, tiny_tokenizer


def random_model(folder, **settings):
    """A tiny model of random weights with room for every prompt; its folder as text."""
    model = tiny_model(dtype=torch.float32, max_position_embeddings=4096, **settings)
    return str(save_policy(model, tiny_tokenizer(), folder))


def reflex_model(folder, otherwise, replies=()):
    """A model that answers `otherwise`, or what `replies` has for the prompt's last token, and then ends.

    Each answer is a token of its own. The layers add nothing to the embeddings, and these are orthogonal, so the head
    is the table of what follows each token.

    Args:
        folder: where to save it.
        otherwise: the usual answer.
        replies: pairs of a prompt's last token, as text, and the answer to it.
    """
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens([otherwise, *(reply for _, reply in replies)])
    size = len(tokenizer)
    width = size + -size % 8
    config = Qwen2Config(
        vocab_size=size, hidden_size=width, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8, tie_word_embeddings=False, max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    table = torch.zeros(size, width)
    (usual,) = tokenizer(otherwise, add_special_tokens=False).input_ids
    table[usual] = 1
    for last, reply in replies:
        (last_id,) = tokenizer(last, add_special_tokens=False).input_ids
        (reply_id,) = tokenizer(reply, add_special_tokens=False).input_ids
        table[reply_id, last_id] = 2
    for said in {otherwise, *(reply for _, reply in replies)}:
        table[tokenizer.eos_token_id, tokenizer(said, add_special_tokens=False).input_ids[0]] = 3
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size, width))
        model.model.norm.weight.fill_(1)
        model.lm_head.weight.copy_(table)
    return str(save_policy(model, tokenizer, folder))
