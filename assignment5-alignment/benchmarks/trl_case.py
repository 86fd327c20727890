"""What both sides of `trl_steps.py` train: a small random model, a tokenizer, recorded rollouts, preference pairs."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

# No weight decay: TRL's trainers would leave biases and norms out of it.
LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY, MAX_GRAD_NORM = 1e-3, (0.9, 0.95), 1e-8, 0.0, 1.0
ADVANTAGE_EPS, CLIPRANGE, DPO_BETA = 1e-4, 0.2, 0.1


@dataclass(frozen=True)
class Case:
    """A folder with everything; `make` writes it, each fresh process reads it."""

    folder: Path

    def model(self) -> PreTrainedModel:
        """The same weights each time, in float32."""
        return AutoModelForCausalLM.from_pretrained(self.folder / "model", dtype=torch.float32)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A word per token."""
        return PreTrainedTokenizerFast.from_pretrained(self.folder / "model")

    def rollouts(self) -> list[dict]:
        """For each step "prompts" and "completions", token ids of each rollout; a group's stand next to each other."""
        return json.loads((self.folder / "rollouts.json").read_text())

    @property
    def pairs(self) -> Path:
        """The preference pairs of one batch."""
        return self.folder / "pairs.jsonl"


def reward_of(text: str) -> float:
    """0 or 1, as if by chance, but always the same for a text."""
    return float(zlib.crc32(text.encode()) % 3 == 0)


def make(folder: Path, shape: dict[str, int], num_steps: int, num_pairs: int) -> Case:
    """Write a case.

    Args:
        shape: vocab_size, d_model, num_layers, num_heads, num_prompts (of a step), group_size, prompt_length and
            completion_length (the longest).
        num_steps: steps of rollouts.
        num_pairs: preference pairs.
    """
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    words = [*special.values(), *(f"w{index}" for index in range(shape["vocab_size"] - len(special)))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen2", vocab_size=shape["vocab_size"], hidden_size=shape["d_model"], intermediate_size=4 * shape["d_model"],
        num_hidden_layers=shape["num_layers"], num_attention_heads=shape["num_heads"],
        num_key_value_heads=shape["num_heads"], max_position_embeddings=4096, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")

    random = np.random.default_rng(0)

    def tokens(longest: int) -> list[int]:
        length = int(random.integers(max(1, longest // 4), longest + 1))
        return random.integers(2, shape["vocab_size"], length).tolist()

    steps = []
    for _ in range(num_steps):
        prompts = [tokens(shape["prompt_length"]) for _ in range(shape["num_prompts"])]
        repeated = [prompt for prompt in prompts for _ in range(shape["group_size"])]
        steps.append({"prompts": repeated, "completions": [tokens(shape["completion_length"]) for _ in repeated]})
    (folder / "rollouts.json").write_text(json.dumps(steps))
    with (folder / "pairs.jsonl").open("w") as file:
        for _ in range(num_pairs):
            prompt = tokenizer.decode(tokens(shape["prompt_length"]))
            chosen, rejected = (" " + tokenizer.decode(tokens(shape["completion_length"])) for _ in range(2))
            file.write(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}) + "\n")
    return Case(folder)
