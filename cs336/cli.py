"""The `cs336` command. Each subcommand imports what it needs when it runs, so that `cs336 --help` is quick."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cs336_basics.command_line import run_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True, help="The course's data sets: what there is, and downloading them.")
app.add_typer(data, name="data")

DataFolder = Annotated[
    Path | None,
    typer.Option(
        help="Data folder.", show_default="assignment1-basics/data at the root of the repository, else ./data"
    ),
]


@app.callback()
def _root() -> None:
    """CS336, Language Modeling from Scratch: all five assignments, from raw text to an aligned model."""


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("quickstart"),
    minutes: Annotated[float, typer.Option(help="Wall-clock time for all of it, in minutes.")] = 4.0,
    text: Annotated[
        Path | None, typer.Option(help="Your own UTF-8 text to train on.", show_default="generated stories")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the stories, the weights and the samples.")] = 0,
) -> None:
    """Train a tokenizer and a language model on a text, and let it write, in a few minutes."""
    from cs336.quickstart.run import run_quickstart

    run_quickstart(out, minutes, text, device, seed)


@app.command()
def doctor() -> None:
    """Say what works on this machine, what does not, and what to install."""
    from cs336.doctor import show_report

    raise typer.Exit(0 if show_report() else 1)


@data.command("list")
def list_data(out: DataFolder = None) -> None:
    """Show the data sets and which of them are here."""
    from cs336.data import show_datasets

    show_datasets(out)


@data.command("get")
def get_data(
    names: Annotated[list[str], typer.Argument(help="Data sets, or a family (tinystories, owt), or all.")],
    out: DataFolder = None,
) -> None:
    """Download data sets; called again, it goes on where it stopped."""
    from cs336.data import get_datasets

    get_datasets(names, out)


def main() -> None:
    """Entry point of the `cs336` console command; bad input is one sentence and exit code 2."""
    run_command(lambda argv: app(argv, prog_name="cs336"), sys.argv[1:])
