"""How good are the planner's plans? 20 simulated worlds of either edition, against two ways to spend the same budget.

uv run python benchmarks/planner.py            # about 10 minutes on two cores
uv run python benchmarks/planner.py --smoke    # two worlds
uv run python benchmarks/planner.py --methods planner --first-seed 1000 --worlds 40    # to calibrate the interval

The worlds measured here are those of seeds 0 to 19. Nothing was tuned on them: the planner's constants (shares of the
budget, discrepancy, width of the interval) were chosen on the worlds of seeds 1000 and above. For each world:

- excess loss: noise-free loss of the chosen configuration at the target over that of the world's true optimum, minus 1;
  a configuration that would not end within the target's time counts as infinite;
- coverage: whether the 90 % interval holds the chosen configuration's noise-free loss;
- share of the budget used.

Below the table stands, for each edition, the quantile of |ln predicted − ln true| over the interval's half width that
makes the interval hold 90 % of these worlds: `interval_factor` is to be multiplied by it, on tuning worlds only.
"""

import argparse
import math
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from cs336_basics.machine import processor_name
from cs336_scaling.planner.baselines import fixed_ratio, random_search
from cs336_scaling.planner.flops_space import FlopsSpace
from cs336_scaling.planner.simulated import SimulatedFlops, SimulatedWallClock
from cs336_scaling.planner.strategy import Planner
from cs336_scaling.planner.wall_clock_space import WallClockSpace
from cs336_scaling.schemas.limits import TARGET_2025_FLOPS, TARGET_2026_SECONDS
from cs336_scaling.simulate.world import World

METHODS = ("planner", "random search", "fixed 20 tokens per parameter")


@dataclass(frozen=True)
class Result:
    """What a method came to in a world; the last three are None where it gives no interval.

    Attributes:
        excess: loss over the true optimum's, minus 1.
        used: share of the budget.
        runs: how many were made.
        half_width: of the interval for the log loss.
        error: (ln predicted − ln true loss of the chosen configuration) / half width; covered within ± 1.
    """

    excess: float
    used: float
    runs: int | None = None
    half_width: float | None = None
    error: float | None = None


def _excess(world, edition, config):
    if edition == "2026" and float(world.expected_seconds([config])[0]) > TARGET_2026_SECONDS:
        return float("inf")
    budget = {"seconds": TARGET_2026_SECONDS} if edition == "2026" else {"train_flops": TARGET_2025_FLOPS}
    return float(world.expected_loss([config])[0]) / world.optimum(**budget).loss - 1


def measure(edition, seed, method):
    """One method in one world."""
    world = World.from_seed(seed)
    space = FlopsSpace() if edition == "2025" else WallClockSpace()
    laboratory = SimulatedFlops(world) if edition == "2025" else SimulatedWallClock(world)
    if method == "planner":
        plan = Planner(space, laboratory).run()
        half_width = math.log(plan.high / plan.low) / 2
        error = math.log(plan.predicted_loss / float(world.expected_loss([plan.config])[0])) / half_width
        excess = _excess(world, edition, plan.config)
        return Result(excess, plan.used / plan.total, len(plan.steps), half_width, error)
    config = random_search(space, laboratory, seed) if method == "random search" else fixed_ratio(space, laboratory)
    budget = laboratory.budget()
    return Result(_excess(world, edition, config), budget.used / budget.total)


def _measure(job):
    return measure(*job)


def _row(edition, method, results):
    excesses = [100 * result.excess for result in results]
    planned = method == "planner"
    cells = [
        edition,
        method,
        f"{statistics.median(excesses):.3f} %",
        f"{max(excesses):.2f} %",
        f"{100 * statistics.mean(abs(result.error) <= 1 for result in results):.0f} %" if planned else "–",
        f"± {100 * statistics.median(result.half_width for result in results):.2f} %" if planned else "–",
        f"{100 * statistics.mean(result.used for result in results):.1f} %",
        f"{statistics.median(result.runs for result in results):.0f}" if planned else "–",
    ]
    return "| " + " | ".join(cells) + " |"


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two worlds instead of twenty")
    parser.add_argument("--editions", nargs="+", choices=["2025", "2026"], default=["2025", "2026"], help="which")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="which (default: all)")
    parser.add_argument("--worlds", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--processes", type=int, default=2, help="worlds at a time (default: 2)")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="other worlds, to tune on: 1000 or above (default: 0)"
    )
    arguments = parser.parse_args()
    seeds = [arguments.first_seed + seed for seed in range(2 if arguments.smoke else arguments.worlds)]
    jobs = [(edition, seed, method) for edition in arguments.editions for method in arguments.methods for seed in seeds]
    start = time.perf_counter()
    results = {}
    with ProcessPoolExecutor(arguments.processes) as pool:
        for job, result in zip(jobs, pool.map(_measure, jobs), strict=True):
            results[job] = result
            print(f"{time.perf_counter() - start:5.0f} s  {job}: {result}", file=sys.stderr)
    print(
        f"{len(seeds)} worlds (seeds {seeds[0]} to {seeds[-1]}); {processor_name()}, "
        f"Python {platform.python_version()}, {time.perf_counter() - start:.0f} s\n"
    )
    header = ["edition", "method", "excess loss, median", "largest", "coverage of the 90 % interval"]
    header += ["half width, median", "budget used, mean", "runs, median"]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for edition in arguments.editions:
        for method in arguments.methods:
            print(_row(edition, method, [results[edition, seed, method] for seed in seeds]))
    if "planner" in arguments.methods:
        for edition in arguments.editions:
            errors = [abs(results[edition, seed, "planner"].error) for seed in seeds]
            print(f"\n{edition}: 90 % of the errors are within {np.quantile(errors, 0.9):.3f} half widths")


if __name__ == "__main__":
    main()
