"""The planning command: against a server of either edition, or in a simulated world in this process."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cs336_basics.command_line import UsageError
from cs336_scaling.client.flops import ScalingClient2025
from cs336_scaling.client.wall_clock import ScalingClient2026
from cs336_scaling.planner.api import ApiFlops, ApiWallClock
from cs336_scaling.planner.flops_space import FlopsSpace
from cs336_scaling.planner.laboratory import Laboratory
from cs336_scaling.planner.ledger import Ledger
from cs336_scaling.planner.report import write_plan
from cs336_scaling.planner.simulated import SimulatedFlops, SimulatedWallClock
from cs336_scaling.planner.space import Space
from cs336_scaling.planner.strategy import Planner, Step
from cs336_scaling.planner.wall_clock_space import WallClockSpace
from cs336_scaling.schemas.edition_2026 import VOCABULARY_SIZES
from cs336_scaling.schemas.limits import BUDGET_2025_FLOPS, BUDGET_2026_SECONDS, TARGET_2025_FLOPS, TARGET_2026_SECONDS
from cs336_scaling.simulate.world import World

BUDGETS = {"2025": BUDGET_2025_FLOPS, "2026": BUDGET_2026_SECONDS}
TARGETS = {"2025": TARGET_2025_FLOPS, "2026": TARGET_2026_SECONDS}
SMOKE_SHARE = 0.2


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        description="Spend a budget of small training runs, and foretell the best configuration for a larger one. "
        "Called again with the same folder after a kill, it goes on without paying twice.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--edition", choices=["2025", "2026"], default="2026", help="2025: FLOPs; 2026: wall clock")
    parser.add_argument("--world", type=int, default=0, help="seed of the simulated world, where no server is given")
    parser.add_argument(
        "--server", "--url", help="address of a training API; without it, a simulated world in this process"
    )
    parser.add_argument(
        "--api-key", "--api_key", default=argparse.SUPPRESS,
        help="your key; default: the environment variable CS336_API_KEY",
    )  # fmt: skip
    parser.add_argument("--budget", type=float, help="FLOPs (2e18) or seconds (43,200); a 2026 server tells its own")
    parser.add_argument("--target", type=float, help="what to plan for; default: 1e19 FLOPs or 172,800 s")
    parser.add_argument(
        "--precision",
        type=float,
        default=0.002,
        help="stop when half the 90 %% interval is below this share of the loss",
    )
    parser.add_argument("--vocab-size", type=int, default=32_000, help="2026: the models' vocabulary")
    parser.add_argument("--widest", type=int, default=4096, help="2026: largest hidden_size considered")
    parser.add_argument("--largest-batch", type=int, default=1536, help="2026: largest batch, in sequences")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="2026: of the training")
    parser.add_argument("--poll-seconds", type=float, default=2.0, help="2026: seconds between looks at a running run")
    parser.add_argument("--submit-final", action="store_true", help="2026: hand the plan in as the final submission")
    parser.add_argument("--smoke", action="store_true", help="a fifth of the default budget, in seconds of real time")
    parser.add_argument("--out", type=Path, default=Path("runs/plan"), help="folder of ledger, plan and report")
    return parser


def _space(arguments: argparse.Namespace) -> Space:
    target = TARGETS[arguments.edition] if arguments.target is None else arguments.target
    if not (0 < target < math.inf):
        raise UsageError(f"target is {target:g}; allowed is any number above 0")
    if arguments.edition == "2025":
        return FlopsSpace(target)
    if arguments.widest < 64 or arguments.largest_batch < 8 or target < 1:
        raise UsageError(
            f"widest, largest batch and target are {arguments.widest}, {arguments.largest_batch} and {target:g} s; "
            "allowed are 64, 8 and 1 s or more"
        )
    if arguments.vocab_size not in VOCABULARY_SIZES:
        raise UsageError(
            f"vocab size is {arguments.vocab_size}; allowed is {VOCABULARY_SIZES[0]} to {VOCABULARY_SIZES[-1]}"
        )
    return WallClockSpace(
        target, vocab_size=arguments.vocab_size, widest=arguments.widest, dtype=arguments.dtype,
        largest_batch=arguments.largest_batch,
    )  # fmt: skip


def _laboratory(arguments: argparse.Namespace) -> tuple[Laboratory[Any], ScalingClient2026 | None]:
    budget = BUDGETS[arguments.edition] if arguments.budget is None else arguments.budget
    if arguments.smoke and arguments.budget is None:
        budget *= SMOKE_SHARE
    if not (0 < budget < math.inf):
        raise UsageError(f"budget is {budget:g}; allowed is any number above 0")
    if arguments.server is None:
        world = World.from_seed(arguments.world)
        return (SimulatedFlops if arguments.edition == "2025" else SimulatedWallClock)(world, budget), None
    key = getattr(arguments, "api_key", None) or os.environ.get("CS336_API_KEY")  # never a default: --help shows those
    if not key:
        raise UsageError("no API key; give --api-key or set CS336_API_KEY")
    # The ledger remembers all answers, so the clients need no cache.
    if arguments.edition == "2025":
        return ApiFlops(ScalingClient2025(arguments.server, key, cache_dir=None), budget), None
    client = ScalingClient2026(arguments.server, key, cache_dir=None)
    return ApiWallClock(client, arguments.poll_seconds), client


def main(argv: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UsageError: a flag is out of range, the ledger belongs to another plan, the server refuses or cannot be reached.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.submit_final and (arguments.server is None or arguments.edition != "2026"):
        raise UsageError("--submit-final needs a 2026 server; give --edition 2026 and --server")
    if not 0 < arguments.precision < 1:
        raise UsageError(f"precision is {arguments.precision:g}; allowed is what lies between 0 and 1")
    if not 0 < arguments.poll_seconds < math.inf:
        raise UsageError(f"poll seconds is {arguments.poll_seconds:g}; allowed is any number above 0")
    space = _space(arguments)
    laboratory, client = _laboratory(arguments)
    keys = ("edition", "world", "server", "budget", "smoke", "target", "vocab_size", "widest", "largest_batch", "dtype")
    ledger = Ledger(laboratory, arguments.out / "ledger.jsonl", {key: getattr(arguments, key) for key in keys})
    if len(ledger):
        print(f"going on after {len(ledger)} runs in {arguments.out}/ledger.jsonl")
    total = ledger.budget().total
    with tqdm(total=100.0, unit="%", bar_format="{l_bar}{bar}| {n:.1f} % of the budget [{elapsed}{postfix}]") as bar:

        def show(step: Step) -> None:
            bar.set_postfix_str(f"{step.stage}, loss {step.outcome.loss or float('nan'):.4f}")
            bar.update(100 * step.outcome.cost / total)

        plan = Planner(space, ledger, precision=arguments.precision, on_step=show).run()
    write_plan(plan, space, arguments.out)
    shape = plan.settings
    print(
        f"{len(plan.steps)} runs, {100 * plan.used / plan.total:.1f} % of the budget; stopped: {plan.stop_reason}\n"
        f"for {space.target:.4g} {space.unit}: {shape.blocks[0]:.4g} block parameters, {shape.tokens[0]:.4g} tokens, "
        f"batches of {shape.batch[0]:,.0f} tokens, learning rate {shape.lr[0]:.3g}\n"
        f"predicted loss {plan.predicted_loss:.4f}, 90 % interval {plan.low:.4f} to {plan.high:.4f}, expected regret "
        f"{100 * plan.expected_regret:.3f} %\n"
        f"wrote {arguments.out}/plan.json and {arguments.out}/report.html"
    )
    if arguments.submit_final and client is not None:
        client.submit_final(plan.config, plan.predicted_loss)
        print("handed in as the final submission")
