"""Time a training step of our model against Hugging Face's `LlamaForCausalLM` of the same shape.

Ours: BasicsTransformerLM, trainer.cross_entropy, trainer.AdamW. Theirs: LlamaForCausalLM with SDPA,
torch.nn.functional.cross_entropy, torch.optim.AdamW. Same weights, same batches; each run is a fresh process, and the
two take turns. The losses of the two must agree, or nothing is reported.

    uv run python benchmarks/training_step.py --batch_size 8
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from cs336_basics.command_line import UsageError, run_command
from cs336_basics.device import resolve_device
from cs336_basics.hf_llama import export_llama, load_llama
from cs336_basics.model import transformer_lm
from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.cross_entropy import cross_entropy

sys.path.insert(0, str(Path(__file__).parent))
from fresh_process import alternating, print_table, report
from machine import describe_machine, peak_memory

LEARNING_RATE = 1e-3
NAMES = {"ours": "cs336_basics", "hf": "transformers"}


def load_ours(folder: Path, device: torch.device, compiled: bool):
    """Our model and the function from token ids to logits."""
    model = load_llama(folder, device)
    return model, torch.compile(model) if compiled else model


def load_theirs(folder: Path, device: torch.device, compiled: bool):
    """The same of transformers."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32).to(device)
    forward = torch.compile(model) if compiled else model
    return model, lambda token_ids: forward(token_ids, use_cache=False).logits


def train(model, compute_logits, cross_entropy, optimizer_class, arguments, num_steps) -> tuple[list, list]:
    """Seconds and losses of each step."""
    model.train()
    device = next(model.parameters()).device
    optimizer = optimizer_class(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    vocab_size = next(model.parameters()).shape[0]
    shape = (arguments.batch_size, arguments.context_length + 1)
    seconds, losses = [], []
    for _ in range(num_steps):
        tokens = torch.randint(vocab_size, shape, generator=generator).to(device)
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
            # No name holds the logits, so that they can be freed as soon as a side's loss no longer needs them.
            loss = cross_entropy(compute_logits(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())  # also waits for an accelerator
        seconds.append(time.perf_counter() - start)
    return seconds, losses


def measure(arguments: argparse.Namespace) -> None:
    """One run, in this process: seconds per step, losses, memory."""
    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    if arguments.worker == "ours":
        load, loss_and_optimizer = load_ours, (cross_entropy, AdamW)
    else:
        load, loss_and_optimizer = load_theirs, (torch.nn.functional.cross_entropy, torch.optim.AdamW)
    # A tiny model first, for what libraries load and set aside only when they are used.
    train(*load(arguments.weights / "tiny", device, compiled=False), *loss_and_optimizer, arguments, num_steps=1)
    memory_before = psutil.Process().memory_info().rss
    full = load(arguments.weights / "full", device, arguments.compile)
    seconds, losses = train(*full, *loss_and_optimizer, arguments, arguments.warmup + arguments.steps)
    peak = peak_memory(device)
    growth = peak if device.type == "cuda" else peak - memory_before
    report(seconds=statistics.median(seconds[arguments.warmup :]), losses=losses, peak=peak, growth=growth)


def check_losses(results: dict[str, dict], tolerance: float) -> float:
    """The largest relative difference of the two sides' losses.

    Raises:
        UsageError: it is over the tolerance, so the two did not compute the same.
    """
    pairs = zip(results["ours"]["losses"], results["hf"]["losses"], strict=True)
    worst = max(abs(ours - theirs) / theirs for ours, theirs in pairs)
    if worst > tolerance:
        raise UsageError(f"the losses differ by {worst:.1e} of their value; allowed is {tolerance:.0e}")
    return worst


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=8, help="sequences per step")
    parser.add_argument("--context_length", type=int, default=256, help="tokens per sequence")
    parser.add_argument("--vocab_size", type=int, default=10_000, help="size of the vocabulary")
    parser.add_argument("--d_model", type=int, default=512, help="width of the model")
    parser.add_argument("--num_layers", type=int, default=4, help="Transformer blocks")
    parser.add_argument("--num_heads", type=int, default=16, help="attention heads")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per run")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them that are not timed")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--compile", action="store_true", help="torch.compile both models")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16: autocast")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps")
    parser.add_argument("--worker", choices=["ours", "hf"], help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        measure(arguments)
        return

    device = resolve_device(arguments.device)
    argv = sys.argv[1:] if argv is None else list(argv)
    torch.manual_seed(0)
    model = transformer_lm(
        arguments.vocab_size, arguments.context_length, arguments.d_model, arguments.num_layers, arguments.num_heads
    )
    with tempfile.TemporaryDirectory() as weights:
        export_llama(model, Path(weights) / "full")
        export_llama(transformer_lm(8, arguments.context_length, 8, 1, 1), Path(weights) / "tiny")
        results = alternating(__file__, list(NAMES), [*argv, "--weights", weights], arguments.rounds)
    worst = check_losses(results, tolerance=1e-4 if arguments.dtype == "float32" else 1e-2)

    tokens = arguments.batch_size * arguments.context_length
    print(describe_machine(arguments.threads, device, ["torch", "transformers"]))
    print(
        f"Batch {arguments.batch_size} x {arguments.context_length} tokens, d_model {arguments.d_model}, "
        f"{arguments.num_layers} layers, {arguments.dtype}{', compiled' if arguments.compile else ''}; medians of "
        f"{arguments.rounds} alternating fresh processes. Losses agree to {worst:.0e}.\n"
    )
    rows = [
        [
            NAMES[which],
            f"{values['seconds']:.3f}",
            f"{tokens / values['seconds']:,.0f}",
            f"{values['peak'] / 1e6:,.0f}",
            f"{values['growth'] / 1e6:,.0f}",
        ]
        for which, values in results.items()
    ]
    seconds, peak, growth = (results["ours"][key] / results["hf"][key] for key in ("seconds", "peak", "growth"))
    rows.append(["ratio", f"{seconds:.2f}", f"{1 / seconds:.2f}", f"{peak:.2f}", f"{growth:.2f}"])
    header = ["", "seconds per step", "tokens/s", "peak memory, MB", "of it for the model and its training, MB"]
    print_table(header, rows)


if __name__ == "__main__":
    run_command(main)
