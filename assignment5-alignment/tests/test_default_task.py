"""The default task: its problems and demonstrations, and the tiny base model."""

import ast
import json
import random
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from cs336_alignment.default_task.arithmetic import GREATEST, draw_chain
from cs336_alignment.default_task.base_model import Recipe, ensure_default_model, ensure_model, pretrain
from cs336_alignment.default_task.made_once import RECIPE_NAME
from cs336_alignment.default_task.pretraining_text import generate_lines
from cs336_alignment.default_task.tasks import demonstration, make_examples, split_of
from cs336_alignment.drgrpo_grader import r1_zero_reward_fn
from cs336_basics.command_line import UsageError

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_default_model.py"
TINY = Recipe(num_layers=1, d_ff=64, steps=3, batch_size=4)


def _value(formula):
    """What Python says a sum comes to."""
    return eval(compile(ast.parse(formula, mode="eval"), "", "eval"), {"__builtins__": {}})


# ---- problems -------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(), st.integers(1, 8))
def test_chains_are_worked_rightly_within_bounds(seed, num_terms):
    chain = draw_chain(random.Random(seed), (num_terms,))
    assert len(chain.terms) == num_terms
    assert chain.result == _value(chain.text) == chain.totals[-1]
    assert all(0 <= total <= GREATEST for total in [chain.first, *chain.totals])
    steps = chain.steps.split()
    assert len(steps) == num_terms
    assert all(_value(left) == int(right) for left, right in (step.split("=") for step in steps))
    assert [int(step.split("=")[1]) for step in steps] == chain.totals
    for worked in (False, True):
        rewards = r1_zero_reward_fn(demonstration(chain, worked), str(chain.result))
        assert rewards == {"format_reward": 1.0, "answer_reward": 1.0, "reward": 1.0}
        assert r1_zero_reward_fn(demonstration(chain, worked), str(chain.result + 1))["reward"] == 0.0


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_examples_are_distinct_right_and_reproducible(split):
    examples = make_examples(split, 400, seed=3)
    assert examples == make_examples(split, 400, seed=3)
    assert examples != make_examples(split, 400, seed=4)
    assert examples[:100] == make_examples(split, 100, seed=3)
    assert len({example["question"] for example in examples}) == 400
    for example in examples:
        assert split_of(example["question"]) == split
        assert example["prompt"] == f"Q: {example['question']}\n<think>"
        assert int(example["answer"]) == _value(example["question"])
        assert r1_zero_reward_fn(example["response"], example["answer"])["reward"] == 1.0
    worked = sum(" </think>" in example["response"] and example["response"].count("=") > 1 for example in examples)
    assert 60 < worked < 140  # a quarter, give or take


def test_splits_share_no_question_whatever_the_seeds():
    questions = {
        split: {example["question"] for seed in range(3) for example in make_examples(split, 1000, seed)}
        for split in ("train", "validation", "test")
    }
    assert not questions["train"] & questions["validation"]
    assert not questions["train"] & questions["test"]
    assert not questions["validation"] & questions["test"]


def test_bad_arguments_are_named():
    with pytest.raises(UsageError, match="split 'dev' is unknown: it must be one of train, validation, test"):
        make_examples("dev", 1)
    with pytest.raises(UsageError, match="number of examples 0"):
        make_examples("train", 0)


def test_pretraining_text_is_right_and_holds_neither_prompts_nor_held_out_problems():
    text = "".join(islice(generate_lines(0), 5000))
    assert "Q:" not in text
    assert "</think> <answer>" not in text
    facts = re.findall(r"(\d+[+-]\d+)=(\d+)", re.sub(r"\d+(?:[+-]\d+){2,}=\d+", "", text))
    assert len(facts) > 5000
    assert all(_value(formula) == int(result) for formula, result in facts)
    chains = re.findall(r"^(\d+(?:[+-]\d+){2,})", text, re.MULTILINE)
    assert len(chains) > 2000
    assert {split_of(chain) for chain in chains} == {"train"}
    results = re.findall(r"^(\d+(?:[+-]\d+){2,})=(\d+)$", text, re.MULTILINE)
    assert results
    assert all(_value(chain) == int(result) for chain, result in results)


# ---- the base model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke_model(tmp_path_factory):
    return ensure_default_model(tmp_path_factory.mktemp("models"), smoke=True, progress=False)


def test_the_model_opens_in_transformers_with_a_token_for_each_digit(smoke_model):
    model = AutoModelForCausalLM.from_pretrained(smoke_model)
    tokenizer = AutoTokenizer.from_pretrained(smoke_model)
    assert model.config.head_dim == 32
    assert model.config.vocab_size == len(tokenizer) == 268
    example = make_examples("train", 1)[0]
    ids = tokenizer(example["prompt"])["input_ids"]
    assert [tokenizer.decode(token) for token in ids[3:-4]] == list(example["question"])
    assert [tokenizer.decode(token) for token in ids[-3:]] == ["<", "think", ">"]
    assert tokenizer.decode(tokenizer("naïve 数 😀")["input_ids"]) == "naïve 数 😀"
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"


def test_it_has_learned_from_its_text(smoke_model):
    model = AutoModelForCausalLM.from_pretrained(smoke_model)
    tokenizer = AutoTokenizer.from_pretrained(smoke_model)
    ids = torch.tensor([tokenizer("".join(islice(generate_lines(99), 40)))["input_ids"]])
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
    counts = torch.bincount(ids[0]).float()
    entropy = torch.distributions.Categorical(counts).entropy().item()
    assert loss < entropy - 0.3  # better than knowing how frequent each token is; 5.6 nats before training


def test_pretraining_is_reproducible_and_leaves_the_callers_randomness_alone(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = pretrain(tmp_path / "a", TINY, progress=False)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(2)
    second = pretrain(tmp_path / "b", TINY, progress=False)
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_what_is_there_is_taken_and_another_recipe_replaces_it(tmp_path):
    folder = ensure_model(tmp_path / "model", TINY, progress=False)
    made = (folder / "model.safetensors").stat()
    assert (ensure_model(folder, TINY, progress=False) / "model.safetensors").stat() == made
    ensure_model(folder, Recipe(num_layers=2, d_ff=64, steps=1, batch_size=4), progress=False)
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2
    (folder / RECIPE_NAME).write_text("{")
    assert json.loads((ensure_model(folder, TINY, progress=False) / RECIPE_NAME).read_text())["recipe"]["steps"] == 3


@pytest.mark.slow
def test_two_processes_at_once_make_it_once_and_a_kill_leaves_nothing(tmp_path, capsys):
    call = [sys.executable, SCRIPT, "--smoke", "--quiet", "--folder", tmp_path]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # The full model takes minutes, so the kill is never late.
    killed = subprocess.Popen([argument for argument in call if argument != "--smoke"], **pipes)
    assert "pretraining" in killed.stderr.readline()  # said before it begins
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "default").exists()
    other = subprocess.Popen(call, **pipes)
    assert "pretraining" in other.stderr.readline()
    made = ensure_default_model(tmp_path, smoke=True, progress=False)  # waits for the other's
    out, _ = other.communicate()
    assert (other.returncode, out.strip()) == (0, str(made))
    assert made == tmp_path / "smoke"
    assert "pretraining" not in capsys.readouterr().err
    AutoModelForCausalLM.from_pretrained(made)
