"""The DPO loss of one pair of texts, under tiny models of transformers."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cs336_alignment.preference.dpo_loss import per_instance_dpo_loss
from cs336_alignment.preference.pairs import PreferencePair, alpaca_pair, encode_pair

from .tiny_models import byte_level_bpe

END = "<|endoftext|>"
PROMPT, CHOSEN, REJECTED = "The quick brown fox jumps over", "the lazy dog.", "their crazy frog, and more."
TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Response:\n{}"
)


@pytest.fixture(scope="module")
def tokenizer():
    """GPT-2's kind of tokenizer, with merges of the test's own text."""
    bpe = byte_level_bpe([TEMPLATE, "a\n\n\n b", PROMPT, CHOSEN, REJECTED] * 3, [END])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END)


def _gpt2(vocab_size, seed):
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=vocab_size, n_positions=256, n_embd=16, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config).double().eval()


def _llama(vocab_size, seed):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config).double().eval()


def _log_prob(model, tokenizer, response):
    """The log-probability of the whole text, one token after the other."""
    ids = [*tokenizer.encode(TEMPLATE.format(PROMPT, response)), tokenizer.eos_token_id]
    logits = model(torch.tensor([ids])).logits[0]
    return sum(torch.log_softmax(logits[place], dim=-1)[token] for place, token in enumerate(ids[1:]))


@pytest.mark.parametrize("build", [_gpt2, _llama])
def test_loss_and_gradients_by_the_definition(tokenizer, build):
    policy, reference = build(len(tokenizer), 0), build(len(tokenizer), 1)
    beta = 0.5
    loss = per_instance_dpo_loss(policy, reference, tokenizer, beta, PROMPT, CHOSEN, REJECTED)
    assert loss.shape == ()
    parameters = list(policy.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    ratios = [_log_prob(policy, tokenizer, text) - _log_prob(reference, tokenizer, text) for text in (CHOSEN, REJECTED)]
    expected = torch.log1p(torch.exp(-beta * (ratios[0] - ratios[1])))
    torch.testing.assert_close(loss, expected)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(gradient, wanted)
    assert loss.item() != pytest.approx(math.log(2), abs=1e-3)


def test_gradients_go_to_the_policy_alone_and_match_finite_differences(tokenizer):
    policy, reference = _gpt2(len(tokenizer), 0), _gpt2(len(tokenizer), 1)
    arguments = (policy, reference, tokenizer, 0.3, PROMPT, CHOSEN, REJECTED)
    per_instance_dpo_loss(*arguments).backward()
    assert all(parameter.grad is None for parameter in reference.parameters())
    weight = policy.transformer.h[0].mlp.c_fc.weight
    place, step = (3, 5), 1e-5
    with torch.no_grad():
        weight[place] += step
        above = per_instance_dpo_loss(*arguments).item()
        weight[place] -= 2 * step
        below = per_instance_dpo_loss(*arguments).item()
    assert weight.grad[place].item() == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_equal_models_know_no_preference(tokenizer):
    policy = _gpt2(len(tokenizer), 0)
    loss = per_instance_dpo_loss(policy, _gpt2(len(tokenizer), 0), tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
    assert loss.item() == pytest.approx(math.log(2))


def test_loss_lies_on_the_policys_device(tokenizer):
    """Any machine has a second device: "meta", where tensors are shapes without values."""

    class Bigrams(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.zeros(len(tokenizer), len(tokenizer), device="meta"))

        def forward(self, input_ids, **ignored):
            return SimpleNamespace(logits=self.table[input_ids])

    loss = per_instance_dpo_loss(Bigrams(), _gpt2(len(tokenizer), 0), tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
    assert loss.device.type == "meta"


def test_responses_end_in_one_eos_and_begin_where_the_texts_part(tokenizer):
    pair = encode_pair(tokenizer, alpaca_pair(PreferencePair(PROMPT, CHOSEN, REJECTED + END)))
    prompt = TEMPLATE.format(PROMPT, "")
    assert tokenizer.decode(pair.chosen) == prompt + CHOSEN + END
    assert tokenizer.decode(pair.rejected) == prompt + REJECTED + END
    assert tokenizer.decode(pair.chosen[: pair.response_start]) == prompt
    assert pair.chosen.count(tokenizer.eos_token_id) == pair.rejected.count(tokenizer.eos_token_id) == 1


def test_a_response_may_share_a_token_with_the_prompt(tokenizer):
    """Here the newline that ends the prompt and those that begin a response are one token."""
    pair = encode_pair(tokenizer, PreferencePair("a\n", "\n\n b", "b"))
    assert tokenizer.decode(pair.chosen[: pair.response_start]) == "a"
    assert pair.chosen[: pair.response_start] == pair.rejected[: pair.response_start]
    assert tokenizer.decode(pair.chosen) == "a\n\n\n b" + END
