"""The command `scripts/scaling.py`: a training API from the terminal, either edition, any server."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.live import Live

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_scaling.client.answers import Experiment
from cs336_scaling.client.cache import DEFAULT_CACHE_DIR
from cs336_scaling.client.flops import ScalingClient2025
from cs336_scaling.client.flops import plan_cost as cost_2025
from cs336_scaling.client.run_files import (
    add_2025_flags,
    add_2026_flags,
    configs_from_flags,
    queries_from_flags,
    read_configs,
    read_queries,
)
from cs336_scaling.client.tables import budget_2026_view, budget_view, console, experiments_table, runs_table
from cs336_scaling.client.wall_clock import ScalingClient2026
from cs336_scaling.client.wall_clock import plan_cost as cost_2026
from cs336_scaling.compute import training_flops
from cs336_scaling.schemas.edition_2026 import TargetConfig, TrainingConfig
from cs336_scaling.schemas.limits import BUDGET_2025_FLOPS

DEFAULT_URL = "http://127.0.0.1:8000"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    server = common.add_argument_group("server")
    server.add_argument("--edition", choices=["2025", "2026"], default="2026", help="which API the server speaks")
    server.add_argument(
        "--url", default=os.environ.get("CS336_API_URL", DEFAULT_URL), help="server; CS336_API_URL sets it as well"
    )
    server.add_argument(
        "--api_key",
        "--api-key",
        default=argparse.SUPPRESS,
        help="your key; default: the environment variable CS336_API_KEY",
    )
    server.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for an answer")
    server.add_argument("--tries", type=int, default=6, help="how often to ask a server that fails")
    server.add_argument("--cache_dir", type=Path, default=DEFAULT_CACHE_DIR, help="folder of known answers")
    server.add_argument("--no_cache", action="store_true", help="keep no answers and use none")
    server.add_argument("--json", action="store_true", help="print JSON instead of tables")

    parser = argparse.ArgumentParser(
        prog="scaling.py",
        description="Budget, experiments and final submission of a training API, by default the one on this machine.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help_text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=help_text, description=help_text, parents=[common],
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip

    add("budget", "Show what is used, reserved and left of the budget.")
    submit = add("submit", "Submit runs from a JSON file, or those that flags describe.")
    submit.add_argument("file", nargs="?", type=Path, help="JSON: one configuration or a list; none: the flags below")
    submit.add_argument("--dry-run", "--dry_run", action="store_true", help="say what it would cost, submit nothing")
    submit.add_argument("--wait", action="store_true", help="watch the runs until they are finished (2026)")
    submit.add_argument("--poll_seconds", type=float, default=2.0, help="seconds between looks when waiting")
    add_2026_flags(submit)
    add_2025_flags(submit)
    listing = add("experiments", "List all experiments (2025: previous runs).")
    listing.add_argument(
        "--export", type=Path, metavar="CSV", default=argparse.SUPPRESS,
        help="also write parameters, tokens, FLOPs and loss of the completed ones, as scripts/fit.py reads them",
    )  # fmt: skip
    watch = add("watch", "Show experiments as they progress, until all are finished.")
    watch.add_argument("ids", nargs="*", help="experiments, or the beginnings of their ids; none: all")
    watch.add_argument("--poll_seconds", type=float, default=2.0, help="seconds between looks")
    final = add("submit-final", "Hand in the configuration for the target budget and the loss predicted for it (2026).")
    final.add_argument(
        "file", nargs="?", type=Path,
        help="JSON: the configuration (with predicted_final_loss, if you like); none: the flags below",
    )  # fmt: skip
    final.add_argument(
        "--predicted_final_loss", type=float, default=argparse.SUPPRESS,
        help="nats per token, above 0; default: what the file says",
    )  # fmt: skip
    add_2026_flags(final)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command: parse the arguments, and run the subcommand of the edition."""
    arguments = build_parser().parse_args(argv)
    if arguments.tries < 1:
        raise UsageError(f"tries is {arguments.tries}; allowed is any whole number above 0")
    if not arguments.timeout > 0:
        raise UsageError(f"timeout is {arguments.timeout:g}; allowed is any number of seconds above 0")
    if not 0 < getattr(arguments, "poll_seconds", 1) < float("inf"):
        raise UsageError(f"poll_seconds is {arguments.poll_seconds:g}; allowed is any number above 0")
    {"2025": _main_2025, "2026": _main_2026}[arguments.edition](arguments)


def _api_key(arguments: argparse.Namespace, needed: bool = True) -> str | None:
    key = getattr(arguments, "api_key", None) or os.environ.get("CS336_API_KEY")
    if key is None and needed:
        raise UsageError("no API key; give --api_key or set the environment variable CS336_API_KEY")
    return key


def _connection_settings(arguments: argparse.Namespace) -> dict:
    cache_dir = None if arguments.no_cache else arguments.cache_dir
    return {"cache_dir": cache_dir, "timeout": arguments.timeout, "tries": arguments.tries}


def _main_2025(arguments: argparse.Namespace) -> None:
    if arguments.command in ("watch", "submit-final"):
        raise UsageError(f"the 2025 edition has no {arguments.command}; it has budget, submit and experiments")
    queries = _queries(arguments) if arguments.command == "submit" else []
    key = _api_key(arguments, needed=not getattr(arguments, "dry_run", False))
    if key is None:
        print(cost_2025(queries).sentences())
        return
    out = console()
    with ScalingClient2025(arguments.url, key, **_connection_settings(arguments)) as client:
        if arguments.command == "budget":
            used = client.total_flops_used()
            if arguments.json:
                _print_json({"total_flops_used": used, "total_budget_flops": BUDGET_2025_FLOPS})
            else:
                out.print(budget_view(used, 0.0, BUDGET_2025_FLOPS, "FLOPs"))
        elif arguments.command == "experiments":
            runs = client.previous_runs()
            _export(arguments, [(run.num_parameters, run.num_tokens, run.train_flops, run.loss) for run in runs])
            if arguments.json:
                _print_json([run.model_dump() for run in runs])
            else:
                out.print(runs_table(runs))
        elif arguments.dry_run:
            print(client.plan_cost(queries).sentences())
        else:
            answers = []
            for query in queries:
                answers.append({**query.model_dump(), "loss": client.loss(query).loss})
                if not arguments.json:
                    shape = f"{query.num_layers} x {query.d_model}, {query.train_flops:.0e} FLOPs"
                    print(f"loss {answers[-1]['loss']:.4f} ({shape})")
            if arguments.json:
                _print_json(answers)
            else:
                print(f"{client.total_flops_used():.6g} FLOPs used so far")


def _main_2026(arguments: argparse.Namespace) -> None:
    configs = _configs(arguments) if arguments.command == "submit" else []
    key = _api_key(arguments, needed=not getattr(arguments, "dry_run", False))
    if key is None:
        print(cost_2026(configs).sentences())
        return
    out = console()
    with ScalingClient2026(arguments.url, key, **_connection_settings(arguments)) as client:
        if arguments.command == "budget":
            budget = client.budget()
            if arguments.json:
                _print_json(budget.model_dump())
            else:
                out.print(budget_2026_view(budget, client.experiments()))
        elif arguments.command == "experiments":
            experiments = client.experiments()
            _export(arguments, [_numbers(one) for one in experiments if one.loss is not None and one.training_config])
            _show(experiments, arguments.json)
        elif arguments.command == "watch":
            _watch(client, _matching(client.experiments(), arguments.ids), arguments)
        elif arguments.command == "submit-final":
            _submit_final(client, arguments)
        elif arguments.dry_run:
            print(client.plan_cost(configs).sentences())
        else:
            ids = []
            for config in configs:
                submission = client.submit(config)
                ids.append(submission.experiment_id)
                if not arguments.json:
                    known = " (there already, costs nothing)" if submission.known else ""
                    left = submission.budget_summary.remaining_seconds
                    print(f"experiment {submission.experiment_id}{known}; {left:,.6g} s left of the budget")
            if arguments.wait:
                _watch(client, ids, arguments)
            elif arguments.json:
                _print_json(ids)


def _queries(arguments: argparse.Namespace) -> list:
    return queries_from_flags(arguments) if arguments.file is None else read_queries(arguments.file)


def _configs(arguments: argparse.Namespace, kind: type[TrainingConfig] = TrainingConfig) -> list[TrainingConfig]:
    return configs_from_flags(arguments, kind) if arguments.file is None else read_configs(arguments.file, kind)


def _matching(experiments: Sequence[Experiment], beginnings: Sequence[str]) -> list[str]:
    """The ids that are meant; all if none is named."""
    if not beginnings:
        return [one.experiment_id for one in experiments]
    ids = []
    for beginning in beginnings:
        found = [one.experiment_id for one in experiments if one.experiment_id.startswith(beginning)]
        exact = [name for name in found if name == beginning]
        if len(exact or found) != 1:
            raise UsageError(f"{len(found)} experiments have an id that begins with {beginning!r}; exactly one must")
        ids += exact or found
    return ids


def _watch(client: ScalingClient2026, ids: Sequence[str], arguments: argparse.Namespace) -> None:
    """A live table in a terminal; elsewhere a line whenever something changes, and the table at the end."""
    out = console()
    if not out.is_terminal or arguments.json:
        seen: dict[str, str] = {}

        def report(experiments: Sequence[Experiment]) -> None:
            for one in experiments:
                losses = f", validation loss {one.val_losses[-1]:.4f}" if one.val_losses else ""
                line = f"{one.experiment_id[:8]} {one.status_type}{losses}"
                if seen.get(one.experiment_id) != line:
                    seen[one.experiment_id] = line
                    print(line, file=sys.stderr)

        _show(client.wait(ids, arguments.poll_seconds, report), arguments.json)
        return
    with Live(console=out, auto_refresh=False) as live:

        def redraw(experiments: Sequence[Experiment]) -> None:
            live.update(
                Group(experiments_table(experiments), budget_2026_view(client.budget(), experiments)), refresh=True
            )

        client.wait(ids, arguments.poll_seconds, redraw)


def _submit_final(client: ScalingClient2026, arguments: argparse.Namespace) -> None:
    [config, *others] = _configs(arguments, TargetConfig)
    if others:
        raise UsageError(f"{1 + len(others)} configurations are given; hand in one")
    predicted = getattr(arguments, "predicted_final_loss", None)
    if predicted is None and arguments.file is not None:
        content = json.loads(arguments.file.read_text(encoding="utf-8"))
        predicted = content.get("predicted_final_loss") if isinstance(content, dict) else None
    if predicted is None:
        raise UsageError("predicted_final_loss is missing; give --predicted_final_loss")
    if not isinstance(predicted, int | float) or not 0 < predicted < float("inf"):
        raise UsageError(f"predicted_final_loss is {predicted!r}; allowed is any number above 0")
    answer = client.submit_final(config, float(predicted))
    if arguments.json:
        _print_json(answer.model_dump(mode="json"))
    else:
        parameters = answer.training_config.architecture_config.num_parameters
        print(
            f"handed in: {parameters:,} parameters, predicted loss {answer.predicted_final_loss:g}; the last one counts"
        )


def _numbers(experiment: Experiment) -> tuple[float, ...]:
    """Parameters, tokens, training FLOPs and loss of a completed experiment."""
    config = experiment.training_config
    parameters = config.architecture_config.num_parameters
    return parameters, config.total_train_tokens, training_flops(config), experiment.loss


def _export(arguments: argparse.Namespace, rows: Sequence[tuple[float, ...]]) -> None:
    if hasattr(arguments, "export"):
        with atomic_write(arguments.export, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("parameters", "tokens", "flops", "loss"))
            writer.writerows(rows)


def _show(experiments: Sequence[Experiment], as_json: bool) -> None:
    if as_json:
        _print_json([one.model_dump(mode="json") for one in experiments])
    else:
        console().print(experiments_table(experiments))


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
