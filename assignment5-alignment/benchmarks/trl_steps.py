"""Compare our GRPO step and our DPO step with those of TRL's trainers: results, time and memory.

Both sides start from the same random model and train on the same tokens in the same type. GRPO learns from recorded
rollouts: nobody generates, and a step is decoding, rewards, advantages, loss, gradients, clipping and AdamW. DPO has
the reference's log-probabilities computed before the first step on both sides. Every run is a fresh process, and the
sides take turns. Gradient norms and final weights must agree, and so must TRL's formulas of the variants, or nothing
is reported.

    uv run --group benchmarks python benchmarks/trl_steps.py             (about 5 minutes)
    uv run --group benchmarks python benchmarks/trl_steps.py --smoke     (small sizes, one turn)
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import safetensors.torch
import torch
from transformers import PreTrainedModel
from transformers.utils import logging
from trl_case import (
    ADVANTAGE_EPS,
    BETAS,
    CLIPRANGE,
    DPO_BETA,
    EPS,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    WEIGHT_DECAY,
    Case,
    make,
    reward_of,
)

from cs336_alignment.policy_gradient.advantages import compute_group_normalized_rewards
from cs336_alignment.policy_gradient.batch import PolicyGradientLoss, RolloutBatch
from cs336_alignment.policy_gradient.rewards import compute_rollout_rewards
from cs336_alignment.policy_gradient.step import policy_gradient_step
from cs336_alignment.preference.batches import load_pair_sets
from cs336_alignment.preference.dpo import DPOConfig, DPOTrainer
from cs336_alignment.preference.reference import reference_log_probs
from cs336_alignment.tokenization import join_prompt_and_output_ids, pad_token_id
from cs336_alignment.training.replica import Replica
from cs336_basics.command_line import UsageError, run_command
from cs336_basics.optimizer import AdamW

sys.path.insert(0, str(Path(__file__).parents[2] / "assignment1-basics" / "benchmarks"))
from fresh_process import alternating, peak_bytes, print_table, report
from machine import describe_machine

SIDES = {
    "grpo": {"grpo-ours": "ours", "grpo-chunked": "ours, head in chunks", "grpo-trl": "TRL"},
    "dpo": {"dpo-ours": "ours", "dpo-chunked": "ours, head in chunks", "dpo-trl": "TRL"},
}
SMOKE = {
    "vocab_size": 500, "d_model": 32, "num_layers": 2, "num_heads": 2, "num_prompts": 2, "prompt_length": 8,
    "completion_length": 12, "steps": 2, "rounds": 1,
}  # fmt: skip
SHAPE = ("vocab_size", "d_model", "num_layers", "num_heads", "num_prompts", "group_size", "prompt_length",
         "completion_length")  # fmt: skip
VARIANTS = {
    "GRPO": ({"loss_type": "grpo"}, {}),
    "GRPO, KL term": (
        {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False}, {"kl_coefficient": 0.04}
    ),
    "GRPO, reweighted KL term": ({"loss_type": "grpo", "beta": 0.04}, {"kl_coefficient": 0.04, "kl_reweighting": True}),
    "Dr. GRPO": ({"loss_type": "dr_grpo"}, {"loss_normalization": "constant"}),
    "DAPO": ({"loss_type": "dapo", "epsilon_high": 0.28}, {"loss_normalization": "token", "cliprange_high": 0.28}),
    "GSPO": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.02},
        {"importance_reweighting_method": "gspo", "cliprange": 0.02},
    ),
    # TRL's bound is one on the ratio itself, and there is none from below.
    "CISPO": (
        {"loss_type": "cispo", "epsilon_high": 1.3},
        {
            "importance_reweighting_method": "cispo", "cliprange": 1.0, "cliprange_high": 0.3,
            "loss_normalization": "token",
        },
    ),
}  # fmt: skip
"""TRL's settings of a loss, and ours."""
TOLERANCE = 1e-3

Run = Callable[[], dict[str, list[float]]]
"""Trains, and returns "seconds", "losses" and "grad_norms" of the steps."""


def make_optimizer(model: PreTrainedModel) -> AdamW:
    return AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)


def our_grpo(case: Case, model: PreTrainedModel, arguments: argparse.Namespace, chunk_tokens: int | None) -> Run:
    """A run of `policy_gradient_step` from sampled ids on."""
    tokenizer, optimizer = case.tokenizer(), make_optimizer(model)
    loss = PolicyGradientLoss("grpo", cliprange=CLIPRANGE, on_policy=True, chunk_tokens=chunk_tokens)
    steps = case.rollouts()

    def run() -> dict[str, list[float]]:
        results: dict[str, list[float]] = {"seconds": [], "losses": [], "grad_norms": []}
        for step in steps:
            start = time.perf_counter()
            texts = tokenizer.batch_decode(step["completions"])
            rewards, _ = compute_rollout_rewards(lambda text, _: {"reward": reward_of(text)}, texts, [""] * len(texts))
            advantages, _ = compute_group_normalized_rewards(rewards, arguments.group_size, advantage_eps=ADVANTAGE_EPS)
            tokens = join_prompt_and_output_ids(step["prompts"], step["completions"], pad_token_id(tokenizer))
            batch = RolloutBatch(**tokens, advantages=advantages)
            value, metadata = policy_gradient_step(
                model, optimizer, batch, loss, arguments.gradient_accumulation_steps, MAX_GRAD_NORM
            )
            results["losses"].append(value.item())
            results["grad_norms"].append(metadata["grad_norm"].item())
            results["seconds"].append(time.perf_counter() - start)
        return results

    return run


def our_dpo(case: Case, model: PreTrainedModel, arguments: argparse.Namespace, chunk_tokens: int | None) -> Run:
    """A run of the DPO program's trainer."""
    num_pairs = arguments.num_prompts * arguments.group_size
    config = DPOConfig(
        model=str(case.folder / "model"), data=str(case.pairs), val_data=str(case.pairs), out=tempfile.mkdtemp(),
        device="cpu", batch_size=num_pairs, epochs=arguments.warmup + arguments.steps, max_length=10_000,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps, lr=LEARNING_RATE, beta1=BETAS[0],
        beta2=BETAS[1], eps=EPS, weight_decay=WEIGHT_DECAY, max_grad_norm=MAX_GRAD_NORM, beta=DPO_BETA,
        head_chunk_tokens=chunk_tokens,
    )  # fmt: skip
    tokenizer = case.tokenizer()
    pairs = load_pair_sets(config, tokenizer, say=lambda message: None)
    reference = reference_log_probs(config, config.model, pairs.pairs, pad_token_id(tokenizer), progress=False)
    trainer = DPOTrainer(config, Replica(model.train(), config), tokenizer, pairs, reference)

    def run() -> dict[str, list[float]]:
        results: dict[str, list[float]] = {"seconds": [], "losses": [], "grad_norms": []}
        for step in range(trainer.num_steps):
            trainer.step = step
            start = time.perf_counter()
            metrics = trainer.train_step()
            results["seconds"].append(time.perf_counter() - start)
            results["losses"].append(metrics["loss"])
            results["grad_norms"].append(metrics["grad_norm"])
        return results

    return run


def prepare(case: Case, model: PreTrainedModel, arguments: argparse.Namespace) -> Run:
    """What the worker's side runs; whatever comes before its first step is done here."""
    program, side = arguments.worker.split("-")
    if side != "trl":
        chunk_tokens = arguments.chunk_tokens if side == "chunked" else None
        return (our_grpo if program == "grpo" else our_dpo)(case, model, arguments, chunk_tokens)
    from trl_peer import train_dpo, train_grpo

    num_steps, accumulation = arguments.warmup + arguments.steps, arguments.gradient_accumulation_steps
    if program == "grpo":
        return train_grpo(case, model, arguments.group_size, accumulation, num_steps)
    return train_dpo(case, model, arguments.num_prompts * arguments.group_size, accumulation, num_steps)


def measure(arguments: argparse.Namespace) -> None:
    """One run, in this process."""
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    case = Case(arguments.folder)
    model = case.model()
    run = prepare(case, model, arguments)
    before = psutil.Process().memory_info().rss
    results = run()
    peak = peak_bytes()
    safetensors.torch.save_file(model.state_dict(), arguments.folder / f"{arguments.worker}.safetensors")
    seconds = statistics.median(results.pop("seconds")[arguments.warmup :])
    report(seconds=seconds, peak=peak, growth=peak - before, **results)


def our_loss_and_gradients(
    model: PreTrainedModel, batch: RolloutBatch, loss: PolicyGradientLoss
) -> tuple[float, list[torch.Tensor]]:
    value, _ = loss.share(model, batch, len(batch), batch.num_tokens)
    return value.item(), list(torch.autograd.grad(value, list(model.parameters())))


def compare_formulas(arguments: argparse.Namespace) -> None:
    """Each variant's loss and gradients, by TRL's trainer and by ours, with ratios on both sides of the bounds."""
    from trl_peer import grpo_trainer, loss_and_gradients

    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    case = Case(arguments.folder)
    pad_id = pad_token_id(case.tokenizer())
    step = {name: ids[: arguments.group_size] for name, ids in case.rollouts()[0].items()}
    rows, longest = len(step["prompts"]), max(map(len, step["completions"]))
    generator = torch.Generator().manual_seed(0)
    advantages = torch.randn(rows, generator=generator)
    ours = RolloutBatch(
        **join_prompt_and_output_ids(step["prompts"], step["completions"], pad_id), advantages=advantages
    )
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in step["completions"]])
    # Random models are near the uniform distribution; the policies before lie around it.
    uniform = -torch.log(torch.tensor(float(arguments.vocab_size)))
    old, reference = uniform + 0.3 * torch.randn(2, rows, longest, generator=generator)
    prompt_width = max(map(len, step["prompts"]))
    theirs = {
        "prompt_ids": torch.tensor([[pad_id] * (prompt_width - len(ids)) + ids for ids in step["prompts"]]),
        "prompt_mask": torch.tensor([[0] * (prompt_width - len(ids)) + [1] * len(ids) for ids in step["prompts"]]),
        "completion_ids": torch.tensor([ids + [pad_id] * (longest - len(ids)) for ids in step["completions"]]),
        "completion_mask": mask, "advantages": advantages, "num_items_in_batch": mask.sum(),
        "old_per_token_logps": old, "ref_per_token_logps": reference,
    }  # fmt: skip

    def aligned(values: torch.Tensor) -> torch.Tensor:
        """From a column per completion token to a column per label."""
        return torch.zeros(ours.labels.shape).masked_scatter(ours.response_mask, values[mask.bool()])

    ours = RolloutBatch(ours.input_ids, ours.labels, ours.response_mask, advantages, aligned(old), aligned(reference))
    differences = {}
    for name, (their_settings, our_settings) in VARIANTS.items():
        settings = {"max_completion_length": 100} | their_settings
        trainer = grpo_trainer(case, case.model(), arguments.group_size, 1, 1, **settings)
        their_loss, their_gradients = loss_and_gradients(trainer, theirs)
        choice = {"importance_reweighting_method": "grpo", "cliprange": CLIPRANGE} | our_settings
        loss = PolicyGradientLoss(**choice, normalization_constant=100 * rows)
        our_loss, our_gradients = our_loss_and_gradients(case.model(), ours, loss)
        scale = max(gradient.abs().max().item() for gradient in their_gradients)
        worst = max((a - b).abs().max().item() for a, b in zip(our_gradients, their_gradients, strict=True))
        differences[name] = [their_loss, our_loss, worst / scale]
    report(differences=differences)


def relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(abs(theirs), 1e-3)


def check(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(f"{message}; allowed is a difference of {TOLERANCE:.0e}")


def check_training(program: str, results: dict[str, dict[str, Any]], folder: Path) -> tuple[float, float]:
    """The largest differences of gradient norms (relative) and of the trained weights (of the longest way any went).

    Raises:
        UsageError: they are over the tolerance, so the sides did not compute the same.
    """
    start = safetensors.torch.load_file(folder / "model" / "model.safetensors")
    trained = {side: safetensors.torch.load_file(folder / f"{side}.safetensors") for side in SIDES[program]}
    theirs = f"{program}-trl"
    way = max((trained[theirs][name] - start[name]).abs().max().item() for name in start)
    worst_norm = worst_weight = 0.0
    for side in SIDES[program]:
        pairs = zip(results[side]["grad_norms"], results[theirs]["grad_norms"], strict=True)
        worst_norm = max(worst_norm, *(relative(*pair) for pair in pairs))
        for name in start:
            # In the mean, since AdamW makes a whole step of a gradient that is rounding and nothing else.
            difference = (trained[side][name] - trained[theirs][name]).abs().mean().item() / way
            worst_weight = max(worst_weight, difference)
    check(worst_norm <= TOLERANCE, f"{program}: gradient norms differ by {worst_norm:.1e} of their value")
    check(worst_weight <= TOLERANCE, f"{program}: weights differ by {worst_weight:.1e} of the way they went")
    return worst_norm, worst_weight


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--vocab_size", type=int, default=8192, help="of the model (default: %(default)s)")
    add("--d_model", type=int, default=256, help="width (default: %(default)s)")
    add("--num_layers", type=int, default=4, help="Transformer blocks (default: %(default)s)")
    add("--num_heads", type=int, default=4, help="attention heads (default: %(default)s)")
    add("--num_prompts", type=int, default=4, help="prompts of a GRPO step (default: %(default)s)")
    add(
        "--group_size", type=int, default=4, help="responses to each; times prompts: DPO's pairs (default: %(default)s)"
    )
    add("--prompt_length", type=int, default=64, help="tokens of the longest prompts (default: %(default)s)")
    add("--completion_length", type=int, default=128, help="tokens of the longest responses (default: %(default)s)")
    add("--gradient_accumulation_steps", type=int, default=2, help="microbatches (default: %(default)s)")
    add("--chunk_tokens", type=int, default=128, help="of the head in chunks (default: %(default)s)")
    add("--steps", type=int, default=4, help="timed steps of a run (default: %(default)s)")
    add("--warmup", type=int, default=1, help="steps before them that are not timed (default: %(default)s)")
    add("--rounds", type=int, default=3, help="runs of each side (default: %(default)s)")
    add("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    add("--smoke", action="store_true", help="small sizes, one turn")
    add("--worker", help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.smoke:
        vars(arguments).update(SMOKE)
    if arguments.worker:
        compare_formulas(arguments) if arguments.worker == "formulas" else measure(arguments)
        return
    passed_on = sys.argv[1:] if argv is None else list(argv)
    shape = {name: getattr(arguments, name) for name in SHAPE}
    with tempfile.TemporaryDirectory() as folder:
        case = make(
            Path(folder), shape, arguments.warmup + arguments.steps, arguments.num_prompts * arguments.group_size
        )
        passed_on += ["--folder", folder]
        formulas = alternating(__file__, ["formulas"], passed_on, 1)["formulas"]["differences"]
        for name, (theirs, ours, gradient) in formulas.items():
            check(relative(ours, theirs) <= TOLERANCE, f"{name}: our loss is {ours}, TRL's {theirs}")
            check(gradient <= TOLERANCE, f"{name}: gradients differ by {gradient:.1e} of the largest")
        results = {
            program: alternating(__file__, list(SIDES[program]), passed_on, arguments.rounds) for program in SIDES
        }
        agreement = {program: check_training(program, results[program], case.folder) for program in SIDES}

    print(describe_machine(arguments.threads, "cpu", ["torch", "transformers", "trl"]))
    num_rows = arguments.num_prompts * arguments.group_size
    print(
        f"Qwen2 shape, d_model {arguments.d_model}, {arguments.num_layers} layers, vocabulary "
        f"{arguments.vocab_size:,}, float32; a step: {num_rows} rollouts (or pairs) of up to "
        f"{arguments.prompt_length} + {arguments.completion_length} tokens in "
        f"{arguments.gradient_accumulation_steps} microbatches; medians of {arguments.rounds} alternating fresh "
        "processes.\n"
    )
    header = [
        "",
        "",
        "seconds per step",
        "of TRL's",
        "peak memory, MB",
        "of TRL's",
        "of it for training, MB",
        "of TRL's",
    ]
    rows = []
    for program, sides in SIDES.items():
        peer = results[program][f"{program}-trl"]
        for side, label in sides.items():
            values = results[program][side]
            cells = [f"{values['seconds']:.3f}", f"{values['peak'] / 1e6:,.0f}", f"{values['growth'] / 1e6:,.0f}"]
            shares = [f"{values[key] / peer[key]:.2f}" for key in ("seconds", "peak", "growth")]
            pairs = [cell for pair in zip(cells, shares, strict=True) for cell in pair]
            rows.append([program.upper(), label, *pairs])
    print_table(header, rows)
    for program, (norm, weight) in agreement.items():
        print(f"\n{program.upper()}: gradient norms agree to {norm:.1e}, trained weights to {weight:.1e} of their way.")
    print("\nTRL's losses of the variants, off-policy, on the same tensors:\n")
    print_table(
        ["variant", "TRL's loss", "our loss", "gradients differ by, of the largest"],
        [
            [name, f"{theirs:.6f}", f"{ours:.6f}", f"{gradient:.0e}"]
            for name, (theirs, ours, gradient) in formulas.items()
        ],
    )


if __name__ == "__main__":
    run_command(main)
