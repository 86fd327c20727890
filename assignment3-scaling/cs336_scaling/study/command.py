"""The command `scripts/study.py`: a small isoFLOP study that really trains, hands off."""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from cs336_basics.command_line import UsageError
from cs336_scaling.client.answers import Experiment
from cs336_scaling.client.wall_clock import ScalingClient2026
from cs336_scaling.schemas.edition_2026 import TrainingConfig
from cs336_scaling.study.plan import Study, StudyPlan, follow, require_budget
from cs336_scaling.study.sizes import TRAIN_SEQUENCE_LENGTH, VOCAB_SIZE

DEFAULT_SECONDS = 900.0
SMOKE_FLOPS = 1.2e11
SMOKE_PLAN = {
    "profiles": 2, "sizes": 3, "rates": (8e-3,), "first_flops": 4e9, "first_parameters": 20_000.0, "growth": 2.0,
}  # fmt: skip
SMOKE_TEXT = {"train_bytes": 2_000_000, "valid_bytes": 100_000, "validation_tokens": 2**12}
TEXT = {"train_bytes": 20_000_000, "valid_bytes": 500_000, "validation_tokens": 2**16}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="study.py",
        description="Train small models of several sizes at several compute budgets, through a training API started "
        "for the purpose, and fit how the best size grows with compute. Called again after a kill, it goes on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--budget", type=float, default=DEFAULT_SECONDS, help="wall clock for all training together, in seconds"
    )
    parser.add_argument(
        "--budget_flops", type=float, default=argparse.SUPPRESS,
        help="training FLOPs for all runs together, in place of --budget; repeatable on any machine",
    )  # fmt: skip
    parser.add_argument("--profiles", type=int, default=StudyPlan.profiles, help="compute budgets")
    parser.add_argument("--sizes", type=int, default=StudyPlan.sizes, help="model sizes per compute budget")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="experiments trained at a time")
    parser.add_argument("--bootstrap", type=int, default=500, help="resamples for the intervals")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--out", type=Path, default=Path("study"), help="folder of server, experiments and results")
    parser.add_argument("--smoke", action="store_true", help="tiny models within a minute; the fit means nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UsageError: a flag is out of range, or too few runs succeed for a fit.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.workers < 1 or arguments.bootstrap < 0:
        raise UsageError(
            f"workers is {arguments.workers} and bootstrap {arguments.bootstrap}; allowed are at least 1 and at least 0"
        )
    plan = study_plan(arguments)
    # Another plan makes other runs and has a server of its own, so that a smoke test cannot disturb a long study.
    identity = json.dumps([asdict(plan), arguments.device, arguments.workers if plan.unit == "seconds" else None])
    out = arguments.out / ("smoke" if arguments.smoke else hashlib.sha256(identity.encode()).hexdigest()[:8])
    study = run_study(plan, out, arguments.workers, arguments.device, arguments.smoke)
    from cs336_scaling.study.results import write_results  # imports matplotlib

    page = write_results(study, out, arguments.bootstrap)
    print(f"\n{page}\n\nreport: {out / 'report.html'}")


def study_plan(arguments: argparse.Namespace) -> StudyPlan:
    """The plan that the flags describe; seconds count for each worker."""
    flops = getattr(arguments, "budget_flops", None)
    if arguments.smoke:
        return StudyPlan(budget=SMOKE_FLOPS if flops is None else flops, unit="FLOPs", **SMOKE_PLAN)
    shape = {"profiles": arguments.profiles, "sizes": arguments.sizes}
    if flops is not None:
        return StudyPlan(budget=flops, unit="FLOPs", **shape)
    require_budget(arguments.budget, "seconds")
    return StudyPlan(budget=arguments.budget * arguments.workers, unit="seconds", **shape)


def run_study(
    plan: StudyPlan, out: Path, workers: int, device: str, smoke: bool, say: Callable[[str], None] = tqdm.write
) -> Study:
    """Start server and workers in `out`, follow the plan through the client, and end them."""
    from cs336_scaling.server.settings import ServerSettings, TrainSettings
    from cs336_scaling.study.local_server import local_server

    settings = ServerSettings(
        data_dir=out / "server",
        backend="train",
        budget_seconds=1e9,  # the plan keeps its own, smaller budget; reservations are generous
        train=TrainSettings(
            tokenizer_vocab_size=VOCAB_SIZE,
            sequence_length=TRAIN_SEQUENCE_LENGTH,
            device=device,
            checkpoint_seconds=10.0,
            **(SMOKE_TEXT if smoke else TEXT),
        ),
    )
    with local_server(settings, workers) as server:
        print(f"training API: {server.url}  dashboard: {server.url}/dashboard  key: {settings.data_dir / 'api_key'}")
        with ScalingClient2026(server.url, server.key, cache_dir=None) as client:
            return follow(plan, lambda configs: _run_with_progress(client, configs), say)


def _run_with_progress(client: ScalingClient2026, configs: Sequence[TrainingConfig]) -> list[Experiment]:
    """Run configurations under a progress bar of their training tokens."""
    total = sum(config.total_train_tokens for config in configs)
    with tqdm(total=total, unit="tok", unit_scale=True, leave=False) as bar:

        def update(experiments: Sequence[Experiment]) -> None:
            done = 0
            for config, one in zip(configs, experiments, strict=False):
                steps = config.num_steps if one.finished else max(one.val_steps, default=0)
                done += config.total_train_tokens * steps // config.num_steps
            bar.n = done
            bar.set_postfix_str(", ".join(f"{status} {n}" for status, n in _counts(experiments).items()))

        return client.run_all(configs, poll_seconds=0.5, on_update=update)


def _counts(experiments: Sequence[Experiment]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in experiments:
        counts[one.status_type] = counts.get(one.status_type, 0) + 1
    return counts
