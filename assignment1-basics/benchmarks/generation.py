"""Time greedy generation with the key-value cache against Hugging Face's `generate` on the same weights.

Each run is a fresh process, and the two take turns. Both must give the same tokens, or nothing is reported.

    uv run python benchmarks/generation.py
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from cs336_basics.command_line import UsageError, run_command
from cs336_basics.device import resolve_device
from cs336_basics.generate import generate_tokens
from cs336_basics.hf_llama import export_llama, load_llama
from cs336_basics.model import transformer_lm

sys.path.insert(0, str(Path(__file__).parent))
from fresh_process import alternating, print_table, report
from machine import describe_machine, peak_memory

NAMES = {"ours": "cs336_basics", "hf": "transformers"}


def measure(arguments: argparse.Namespace) -> None:
    """One run, in this process: seconds per call, the tokens, memory."""
    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    shape = (arguments.batch, arguments.prompt_length)
    prompts = torch.randint(arguments.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    if arguments.worker == "ours":
        model = load_llama(arguments.weights, device).eval()

        def generate(length):
            return generate_tokens(model, prompts.tolist(), length, temperature=0)
    else:
        from transformers import LlamaForCausalLM

        model = LlamaForCausalLM.from_pretrained(arguments.weights, dtype=torch.float32).to(device).eval()
        model.generation_config.pad_token_id = 0
        inputs, mask = prompts.to(device), torch.ones(shape, dtype=torch.long, device=device)

        def generate(length):
            tokens = model.generate(inputs, attention_mask=mask, max_new_tokens=length, do_sample=False)
            return tokens[:, shape[1] :].tolist()

    generate(8)
    seconds = []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        tokens = generate(arguments.new_tokens)
        seconds.append(time.perf_counter() - start)
    report(seconds=statistics.median(seconds), tokens=tokens, peak=peak_memory(device))


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 32], help="prompts generated together")
    parser.add_argument("--prompt_length", type=int, default=16, help="tokens per prompt")
    parser.add_argument("--new_tokens", type=int, default=200, help="tokens generated per prompt")
    parser.add_argument("--vocab_size", type=int, default=10_000, help="size of the vocabulary")
    parser.add_argument("--d_model", type=int, default=512, help="width of the model")
    parser.add_argument("--num_layers", type=int, default=4, help="Transformer blocks")
    parser.add_argument("--num_heads", type=int, default=16, help="attention heads")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls per run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps")
    parser.add_argument("--worker", choices=["ours", "hf"], help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        measure(arguments)
        return

    device = resolve_device(arguments.device)
    argv = sys.argv[1:] if argv is None else list(argv)
    torch.manual_seed(0)
    context_length = arguments.prompt_length + arguments.new_tokens
    model = transformer_lm(
        arguments.vocab_size, context_length, arguments.d_model, arguments.num_layers, arguments.num_heads
    )
    rows = []
    with tempfile.TemporaryDirectory() as weights:
        export_llama(model, weights)
        for batch in arguments.batch_sizes:
            print(f"batch {batch}:", file=sys.stderr)
            common = [*argv, "--batch", str(batch), "--weights", weights]
            results = alternating(__file__, list(NAMES), common, arguments.rounds)
            ours, theirs = (results[which]["tokens"] for which in NAMES)
            if ours != theirs:
                equal = sum(left == right for left, right in zip(ours, theirs, strict=True))
                raise UsageError(f"with batch {batch}, only {equal} of {batch} rows of tokens are equal")
            speed = {which: batch * arguments.new_tokens / result["seconds"] for which, result in results.items()}
            peak = {which: result["peak"] / 1e6 for which, result in results.items()}
            for quantity, values in (("tokens/s", speed), ("peak memory, MB", peak)):
                numbers = [f"{values[which]:,.0f}" for which in NAMES]
                rows.append([str(batch), quantity, *numbers, f"{values['ours'] / values['hf']:.2f}"])

    print(describe_machine(arguments.threads, device, ["torch", "transformers"]))
    print(
        f"{arguments.new_tokens} new tokens after {arguments.prompt_length}, d_model {arguments.d_model}, "
        f"{arguments.num_layers} layers, float32, greedy, equal tokens; medians of {arguments.rounds} alternating "
        "fresh processes.\n"
    )
    print_table(["batch", "", *NAMES.values(), "ratio"], rows)


if __name__ == "__main__":
    run_command(main)
