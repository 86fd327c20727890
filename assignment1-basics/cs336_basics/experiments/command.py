"""The command over all studies: `python scripts/experiments.py STUDY`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from cs336_basics.command_line import UsageError
from cs336_basics.experiments.ablations import ablations
from cs336_basics.experiments.batch_size import batch_size
from cs336_basics.experiments.corpora import openwebtext, tinystories
from cs336_basics.experiments.leaderboard import leaderboard
from cs336_basics.experiments.learning_rate import learning_rate
from cs336_basics.experiments.study import SCALES, Scale, Study

STUDIES: dict[str, Callable[[Scale], Study]] = {
    study.__name__: study for study in (learning_rate, batch_size, ablations, tinystories, openwebtext, leaderboard)
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="experiments.py",
        description="Run one of the studies; without a name, list them. What is done is not done again, and an "
        "interrupted run goes on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("study", nargs="?", choices=list(STUDIES), help="which study")
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny version of the whole study, about a minute on a CPU"
    )
    parser.add_argument(
        "--scale",
        choices=["auto", *SCALES],
        default="auto",
        help="size of model and budget: gpu is the handout's, laptop its low-resource one, cpu a small model; auto "
        "takes gpu with CUDA, laptop with MPS, else cpu",
    )
    parser.add_argument("--out", type=Path, default=Path("experiments_out"), help="folder of all results")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the downloaded texts")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, data order and samples")
    parser.add_argument("--only", nargs="+", default=[], metavar="RUN", help="train these runs only; none: all")
    parser.add_argument("--train_steps", type=int, default=None, help="optimizer steps of every run; none: the study's")
    parser.add_argument("--max_minutes", type=float, default=None, help="end every run after so long; none: no limit")
    parser.add_argument("--wandb_project", default=None, help="log to this Weights & Biases project; none: do not")
    return parser


def resolve_scale(scale: str, device: str) -> Scale:
    """The scale that fits the device, where "auto" is asked for."""
    if scale != "auto":
        return scale
    from cs336_basics.device import resolve_device

    return {"cuda": "gpu", "mps": "laptop", "cpu": "cpu"}[resolve_device(device).type]


def main(argv: Sequence[str] | None = None) -> None:
    """The command: run a study and say where its results are."""
    arguments = build_parser().parse_args(argv)
    if arguments.study is None:
        _list_studies()
        return
    if arguments.smoke and arguments.scale not in ("auto", "smoke"):
        raise UsageError(f"--smoke and --scale {arguments.scale} contradict each other; give one of them")
    from cs336_basics.experiments.engine import Options, run_study  # torch takes seconds to import
    from cs336_basics.experiments.results import markdown_table, outcome_table

    scale = resolve_scale("smoke" if arguments.smoke else arguments.scale, arguments.device)
    study = STUDIES[arguments.study](scale)
    options = Options(
        out=arguments.out,
        text_dir=arguments.data_dir,
        scale=scale,
        device=arguments.device,
        seed=arguments.seed,
        only=tuple(arguments.only),
        train_steps=arguments.train_steps,
        max_minutes=arguments.max_minutes,
        wandb_project=arguments.wandb_project,
    )
    outcomes = run_study(study, options)
    print(f"\n{markdown_table(outcome_table(study, outcomes))}")
    print(f"report: {(options.out / study.name / scale / 'report.html').resolve()}")


def _list_studies() -> None:
    for name, make in STUDIES.items():
        study = make("gpu")
        print(f"{name}: {study.title}\n  {study.question}\n  runs: {', '.join(run.name for run in study.runs)}\n")
    print("Try one: experiments.py learning_rate --smoke")
