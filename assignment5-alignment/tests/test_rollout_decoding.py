"""The decode loop against `generate` of transformers, full forward passes, and the sampling distribution."""

import math
from copy import deepcopy
from itertools import product

import pytest
import torch
from tokenizers.processors import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_basics.command_line import UsageError

from .rollout_models import END, FAMILIES, PROMPTS, make_model
from .tiny_models import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def llama():
    return make_model("llama")


def flat(groups):
    return [rollout for group in groups for rollout in group]


@torch.no_grad()
def full_log_probs(model, tokenizer, rollout):
    """Of a response's tokens, from one forward pass over the text without padding and cache."""
    prompt = tokenizer(rollout.prompt).input_ids
    logits = model(torch.tensor([prompt + rollout.token_ids])).logits[0].double()
    rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return rows[range(len(rollout.token_ids)), rollout.token_ids]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_generate(family, tokenizer):
    model = make_model(family)
    # The token that the model draws most becomes the one that ends a text, so that rows end at different steps.
    engine = HFEngine(model, tokenizer)
    drawn = [token for one in flat(engine.generate(PROMPTS, greedy(40))) for token in one.token_ids[3:20]]
    end = max(set(drawn), key=drawn.count)
    model.generation_config.eos_token_id = [END, end]
    rollouts = flat(HFEngine(model, tokenizer).generate(PROMPTS, greedy(40)))
    for prompt, rollout in zip(PROMPTS, rollouts, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")
        expected = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs.input_ids.shape[1] :]
        assert rollout.token_ids == expected.tolist()
        assert rollout.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert rollout.finish_reason == ("stop" if rollout.token_ids[-1] in (END, end) else "length")
    assert len({len(rollout.token_ids) for rollout in rollouts}) > 1  # some end early


def greedy(max_tokens, **others):
    return SamplingParameters(max_tokens=max_tokens, temperature=0.0, **others)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_are_those_of_one_full_forward_pass(family, tokenizer):
    model = make_model(family)
    parameters = SamplingParameters(max_tokens=30, temperature=0.7, top_p=0.9, num_samples=3, seed=3, log_probs=True)
    rollouts = flat(HFEngine(model, tokenizer, max_batch_size=7).generate(PROMPTS, parameters))
    assert len(rollouts) == 3 * len(PROMPTS)
    for rollout in rollouts:
        expected = full_log_probs(model, tokenizer, rollout)
        torch.testing.assert_close(torch.tensor(rollout.log_probs).double(), expected, rtol=1e-4, atol=1e-4)


def test_log_probs_are_left_out_unless_asked_for(llama, tokenizer):
    assert flat(HFEngine(llama, tokenizer).generate(["a"], greedy(2)))[0].log_probs is None


def test_a_response_does_not_depend_on_the_batch(llama, tokenizer):
    parameters = SamplingParameters(max_tokens=25, num_samples=4, seed=11)
    reference = HFEngine(llama, tokenizer).generate(PROMPTS, parameters)
    for size in (1, 3, 20):
        assert HFEngine(llama, tokenizer, max_batch_size=size).generate(PROMPTS, parameters) == reference
    assert HFEngine(llama, tokenizer).generate(PROMPTS[::-1], parameters) == reference[::-1]
    assert HFEngine(llama, tokenizer).generate(PROMPTS[:1], parameters) == reference[:1]
    assert len({rollout.text for rollout in reference[0]}) == 4
    other = SamplingParameters(max_tokens=25, num_samples=4, seed=12)
    assert HFEngine(llama, tokenizer).generate(PROMPTS, other) != reference


def test_a_prompt_that_comes_again_gets_further_samples(llama, tokenizer):
    engine = HFEngine(llama, tokenizer)
    together = engine.generate(["so on"], SamplingParameters(max_tokens=12, num_samples=6, seed=5))
    apart = engine.generate(["so on"] * 3, SamplingParameters(max_tokens=12, num_samples=2, seed=5))
    assert flat(apart) == flat(together)


def test_without_a_seed_each_call_draws_anew_and_leaves_the_global_random_state(llama, tokenizer):
    engine = HFEngine(llama, tokenizer)
    before = torch.get_rng_state()
    parameters = SamplingParameters(max_tokens=20, num_samples=2)
    assert engine.generate(PROMPTS, parameters) != engine.generate(PROMPTS, parameters)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.5, 0.8)])
def test_pairs_of_tokens_follow_the_model_s_distribution(temperature, top_p, tokenizer):
    """Pearson's chi-square of the first two tokens; the 99.99% point by the Wilson-Hilferty approximation."""
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"bos_token_id": 0, "eos_token_id": END, "pad_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=12, initializer_range=0.15, **shape, **tokens)).eval()
    samples = 6000
    parameters = SamplingParameters(
        max_tokens=2, temperature=temperature, top_p=top_p, num_samples=samples, seed=0, min_tokens=2
    )
    rollouts = HFEngine(model, tokenizer, max_batch_size=samples).generate(["<pad>"], parameters)[0]
    counts: dict[tuple[int, ...], int] = {}
    for rollout in rollouts:
        counts[tuple(rollout.token_ids)] = counts.get(tuple(rollout.token_ids), 0) + 1

    prompt = tokenizer("<pad>").input_ids
    first = reference_distribution(model, [prompt], temperature, top_p)[0]
    second = reference_distribution(model, [[*prompt, token] for token in range(len(first))], temperature, top_p)
    joint = first[:, None] * second
    assert all(joint[pair] > 0 for pair in counts)
    statistic, cells, rest = 0.0, 0, [0.0, 0.0]
    for pair in product(range(len(first)), repeat=2):
        expected, observed = samples * float(joint[pair]), counts.get(pair, 0)
        if expected >= 5:
            statistic, cells = statistic + (observed - expected) ** 2 / expected, cells + 1
        else:
            rest = [rest[0] + expected, rest[1] + observed]
    if rest[0] >= 5:
        statistic, cells = statistic + (rest[1] - rest[0]) ** 2 / rest[0], cells + 1
    degrees = cells - 1
    assert degrees >= 5
    assert statistic < degrees * (1 - 2 / (9 * degrees) + 3.72 * math.sqrt(2 / (9 * degrees))) ** 3


@torch.no_grad()
def reference_distribution(model, contexts, temperature, top_p):
    """Next-token probabilities, token by token: temperature, the end token left out, then the nucleus."""
    logits = model(torch.tensor(contexts)).logits[:, -1].double()
    logits[:, END] = -math.inf
    rows = (logits / temperature).softmax(-1)
    for row in rows:
        kept, total = set(), 0.0
        for token in row.argsort(descending=True).tolist():
            kept.add(token)
            total += float(row[token])
            if total >= top_p:
                break
        if top_p < 1:
            row[[token for token in range(len(row)) if token not in kept]] = 0
    return rows / rows.sum(-1, keepdim=True)


def test_min_tokens_keeps_the_end_token_away(llama, tokenizer):
    engine = HFEngine(llama, tokenizer)
    first = flat(engine.generate(PROMPTS[:1], greedy(10)))[0].token_ids
    end = first[0]
    llama.generation_config.eos_token_id = end
    try:
        engine = HFEngine(llama, tokenizer)
        assert flat(engine.generate(PROMPTS[:1], greedy(10)))[0].token_ids == [end]
        kept = flat(engine.generate(PROMPTS[:1], greedy(10, min_tokens=4, log_probs=True)))[0]
    finally:
        llama.generation_config.eos_token_id = END
    assert len(kept.token_ids) >= 4
    assert end not in kept.token_ids[:4]
    # The model's own log-probabilities, not those of what was left to draw from.
    expected = full_log_probs(llama, tokenizer, kept)
    torch.testing.assert_close(torch.tensor(kept.log_probs).double(), expected, rtol=1e-4, atol=1e-4)


def test_responses_end_with_the_context(llama, tokenizer):
    prompt = "a" * 110
    length = len(tokenizer(prompt).input_ids)
    short, long = flat(HFEngine(llama, tokenizer).generate(["so on", prompt], greedy(100, min_tokens=100)))
    assert len(long.token_ids) == 128 - length
    assert long.finish_reason == "length"
    assert len(short.token_ids) == 100
    with pytest.raises(UsageError, match="tokens; allowed are 1 to 127"):
        HFEngine(llama, tokenizer).generate(["a" * 4000], greedy(4))
    without_first_token = deepcopy(tokenizer)
    without_first_token.backend_tokenizer.post_processor = ByteLevel()
    with pytest.raises(UsageError, match="the prompt '' has 0 tokens"):
        HFEngine(llama, without_first_token).generate(["so on", ""], greedy(4))


def test_no_prompts_give_no_rollouts(llama, tokenizer):
    assert HFEngine(llama, tokenizer).generate([], greedy(4)) == []


def test_dropout_is_off_while_sampling_and_the_mode_comes_back(tokenizer):
    model = make_model("gpt2")
    expected = HFEngine(model, tokenizer).generate(PROMPTS, greedy(10))
    model.train()
    assert HFEngine(model, tokenizer).generate(PROMPTS, greedy(10)) == expected
    assert model.training


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("min_tokens", 300),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("num_samples", 0),
        ("stop", "text"),
        ("stop", ("",)),
        ("seed", -1),
    ],
)
def test_parameters_out_of_range_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} is"):
        SamplingParameters(**{name: value})
