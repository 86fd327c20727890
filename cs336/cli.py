"""The `cs336` command."""

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _root() -> None:
    """CS336, Language Modeling from Scratch."""


def main() -> None:
    """Entry point of the `cs336` console command."""
    app()
