"""The server's program: `scripts/server.py [serve | add-user NAME | list-users | worker]`."""

import argparse
import os
import signal
import socket
import sys
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from types import FrameType

from cs336_basics.command_line import UsageError, run_command
from cs336_scaling.server.accounts import add_user, list_users
from cs336_scaling.server.services import Services
from cs336_scaling.server.settings import ServerSettings, TrainSettings

_FIRST_USER = "student"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="server.py",
        description="The training API of assignment 3. Without a command: serve, with all defaults.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = _command(commands, "serve", "answer requests until Ctrl-C")
    _add_backend_flags(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for other machines' requests")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on; 0 for any that is free")
    serve.add_argument("--workers", type=int, default=1, help="train: worker processes to start on this machine")
    serve.add_argument(
        "--threads", type=int, help="train: CPU threads per worker; None: OMP_NUM_THREADS, else its share of the cores"
    )
    adding = _command(commands, "add-user", "make a user and print the key, once")
    adding.add_argument("name", help="the user's name")
    _add_budget_flags(adding)
    _command(commands, "list-users", "print users and their budgets")
    worker = _command(commands, "worker", "train queued experiments until Ctrl-C (backend train)")
    _add_train_flags(worker)
    worker.add_argument("--name", help="tells workers apart; default: host and a random word")
    worker.add_argument("--threads", type=int, help="CPU threads; None: OMP_NUM_THREADS, else one per core")
    worker.add_argument("--drain", action="store_true", help="end when no experiment is waiting")
    worker.add_argument("--parent", type=int, help="end when the process of this id, which started the worker, is gone")
    return parser


def _command(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    defaults = ServerSettings()
    parser.add_argument(
        "--data-dir", type=Path, default=defaults.data_dir, help="folder of database, texts and checkpoints"
    )
    parser.add_argument(
        "--database", metavar="URL", help="SQLAlchemy URL; None: the SQLite file training_api.sqlite in the data folder"
    )
    return parser


def _add_budget_flags(parser: argparse.ArgumentParser) -> None:
    defaults = ServerSettings()
    parser.add_argument(
        "--budget-flops", type=float, default=defaults.budget_flops, help="2025: a new user's budget in FLOPs"
    )
    parser.add_argument(
        "--budget-seconds", type=float, default=defaults.budget_seconds, help="2026: a new user's budget in seconds"
    )


def _add_backend_flags(parser: argparse.ArgumentParser) -> None:
    defaults = ServerSettings()
    parser.add_argument(
        "--backend", choices=["simulate", "train"], default=defaults.backend, help="where losses come from"
    )
    parser.add_argument(
        "--world-seed", type=int, default=defaults.world_seed, help="simulate: names the world; another has other laws"
    )
    parser.add_argument(
        "--speed", type=float, default=defaults.speed, help="simulate: simulated seconds per second; inf: at once"
    )
    parser.add_argument(
        "--slots", type=int, default=defaults.slots, help="simulate: experiments of a user that run at the same time"
    )
    _add_budget_flags(parser)
    _add_train_flags(parser)


_TRAIN_HELP = {
    "tokenizer_vocab_size": "tokens of the tokenizer; models need at least as many",
    "sequence_length": "tokens per sequence, a divisor of 512; shorter ones train faster on a CPU",
    "validation_tokens": "tokens per validation, at most those of the validation text",
    "micro_batch_tokens": "most tokens that go through the model at once",
    "device": "auto, cuda, cuda:N, mps or cpu",
    "checkpoint_seconds": "seconds of training between two checkpoints",
    "lease_seconds": "seconds without a sign of life until a worker counts as dead",
    "max_attempts": "workers that may die on an experiment between two validations until it fails",
    "train_bytes": "size of generated training text, where data_dir/text has no TinyStories",
    "valid_bytes": "size of generated validation text",
}


def _add_train_flags(parser: argparse.ArgumentParser) -> None:
    for field in fields(TrainSettings):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(
            flag, type=type(field.default), default=field.default, help=f"train: {_TRAIN_HELP[field.name]}"
        )


def _settings(arguments: argparse.Namespace) -> ServerSettings:
    """The settings that flags name; flags that a command lacks leave the defaults."""
    given = vars(arguments)
    train = TrainSettings(**{spec.name: given[spec.name] for spec in fields(TrainSettings) if spec.name in given})
    names = {spec.name for spec in fields(ServerSettings)} - {"train"}
    chosen = {name: value for name, value in given.items() if name in names}
    return ServerSettings(**chosen, database_url=given["database"], train=train)


def serve(arguments: argparse.Namespace) -> None:
    """Answer requests. A first user is made if there is none."""
    import uvicorn

    from cs336_scaling.server.app import create_app

    settings = _settings(arguments)
    if arguments.workers < 0:
        raise UsageError(f"workers is {arguments.workers}; allowed is any whole number of at least 0")
    _check_threads(arguments)
    listener = _listen(arguments.host, arguments.port)
    app = create_app(settings)
    services: Services = app.state.services
    if settings.backend == "train":
        from cs336_scaling.server.training_text import prepare_text

        prepare_text(settings)
    address = f"http://{'127.0.0.1' if arguments.host == '0.0.0.0' else arguments.host}:{listener.getsockname()[1]}"
    if not list_users(services.database):
        key = add_user(services.database, settings, _FIRST_USER)
        print(f"made the user {_FIRST_USER}; the key, which is shown only now: {key}")
    print(
        f"training API ({settings.backend}): {address}\ndocumentation: {address}/docs\ndashboard: {address}/dashboard"
    )
    sys.stdout.flush()
    # Keys stand in the addresses of the 2025 edition, so requests are not logged.
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    with ExitStack() as stack:
        if settings.backend == "train" and arguments.workers:
            from cs336_scaling.server.worker_pool import WorkerPool, worker_flags

            # uvicorn ends on SIGTERM by raising it again: as an exception, it lets the workers end first.
            signal.signal(signal.SIGTERM, _leave)
            flags = worker_flags(settings, arguments.workers, arguments.threads)
            stack.enter_context(WorkerPool(arguments.workers, flags, services.leases))
        server.run(sockets=[listener])


def _check_threads(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"threads is {arguments.threads}; allowed is any whole number above 0")


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # from here on clients wait instead of being refused
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error}; choose others with --host and --port"
        ) from None
    return listener


def work(arguments: argparse.Namespace) -> None:
    """Train queued experiments."""
    import torch

    from cs336_basics.trainer.interrupts import StopRequest
    from cs336_scaling.server.training_text import prepare_text
    from cs336_scaling.server.worker import Worker, parent_has_died

    settings = _settings(arguments)
    _check_threads(arguments)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    services = Services.open(settings)
    name = arguments.name or f"{os.uname().nodename}-{uuid.uuid4().hex[:8]}"
    with StopRequest() as stop:
        data = prepare_text(settings)
        worker = Worker(
            settings, services.leases, data, name, lambda: stop.requested or parent_has_died(arguments.parent)
        )
        worker.work(arguments.drain)
    services.database.close()


def add(arguments: argparse.Namespace) -> None:
    """Make a user and print the key."""
    settings = _settings(arguments)
    print(add_user(Services.open(settings).database, settings, arguments.name))


def show_users(arguments: argparse.Namespace) -> None:
    """Print users and budgets."""
    for account in list_users(Services.open(_settings(arguments)).database):
        print(f"{account.name}\t{account.budget_flops:g} FLOPs\t{account.budget_seconds:g} s")


_COMMANDS = {"serve": serve, "add-user": add, "list-users": show_users, "worker": work}


def main(argv: Sequence[str] | None = None) -> None:
    """The program."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv or ["serve"])
    _COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    run_command(main)
