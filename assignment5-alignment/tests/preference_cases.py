"""A tiny model in a folder and a file of preference pairs: what the tests of learning from pairs share."""

import json
import random
from pathlib import Path

import torch

from cs336_alignment.preference.batches import load_pair_sets
from cs336_alignment.training.config import config_from_settings

from .tiny_models import tiny_model, tiny_tokenizer

WORDS = ("forty-six", "Twelve", "words", "merges", "more", "some")


def make_pairs(number, seed=0):
    """Answers to sums: the preferred one ends in "make it so"; their lengths differ."""
    draws = random.Random(seed)
    pairs = []
    for _ in range(number):
        prompt = f"Question: what is {draws.randint(1, 99)} + {draws.randint(1, 99)}?\n"
        filler = [" ".join(draws.choices(WORDS, k=draws.randint(1, 4))) for _ in range(2)]
        pairs.append({"prompt": prompt, "chosen": f"{filler[0]} make it so", "rejected": f"{filler[1]} on"})
    return pairs


def write_pairs(path, number, seed=0):
    """A file of such pairs."""
    path.write_text("".join(json.dumps(pair) + "\n" for pair in make_pairs(number, seed)))
    return path


def prepare(folder, config_class, num_pairs=24, dtype=torch.float32, **settings):
    """Settings for a model and pairs in `folder`, its tokenizer, and the pairs."""
    model, data = Path(folder) / "base", Path(folder) / "pairs.jsonl"
    if not model.exists():
        tiny_model(dtype=dtype).save_pretrained(model)
        tiny_tokenizer().save_pretrained(model)
        write_pairs(data, num_pairs)
    given = {
        "model": str(model), "data": str(data), "out": str(Path(folder) / "run"), "device": "cpu", "val_pairs": 8,
        "batch_size": 4, "num_steps": 4, "eval_every": 2, "save_every": 1, "keep_checkpoints": 0, **settings,
    }  # fmt: skip
    config = config_from_settings(config_class, given)
    tokenizer = tiny_tokenizer()
    return config, tokenizer, load_pair_sets(config, tokenizer, say=lambda message: None)


def expect_same_tensors(first, second):
    """Bit for bit."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
