"""What the tests of vLLM share: a model folder that vLLM accepts, and one engine of each kind over it.

vLLM takes most of a minute to start, and holds its memory until its process ends: each test module has one engine.
"""

import os

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from cs336_alignment.policy import load_policy, load_tokenizer, save_policy

# Before vLLM is imported: its threads and the policy's share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CORPUS = ["the answer is <answer> 42 </answer>\n", "so on. </think> we add 1+2=3; and then 3+4=7, that is all."]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A random model of two layers; vLLM's kernels for the CPU take heads of 32, not of 16."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # ASCII alone (Ġ and Ċ stand for the blank and the new line): what is drawn at random is text as well.
    alphabet = [*map(chr, range(33, 127)), "Ġ", "Ċ"]
    settings = {"special_tokens": ["<|end|>"], "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=320, **settings))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=256, tie_word_embeddings=True, eos_token_id=0,
        bos_token_id=None, pad_token_id=0, initializer_range=0.25,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_policy(AutoModelForCausalLM.from_config(config), fast, folder)


@pytest.fixture(scope="module")
def tokenizer(model_folder):
    return load_tokenizer(model_folder)


@pytest.fixture
def policy(model_folder):
    """Fresh for each test, which may train it."""
    return load_policy(model_folder, "cpu")
