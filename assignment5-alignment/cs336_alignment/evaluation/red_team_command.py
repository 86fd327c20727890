"""The command that attacks a model with harmful requests (`scripts/red_team.py`)."""

from collections.abc import Sequence

from cs336_alignment.evaluation.config import RedTeamConfig, parse_config
from cs336_alignment.evaluation.red_teaming import red_team


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    description = (
        "Attack a model: harmful requests in several disguises, several attempts each, judged for safety, counted by "
        "attack. The same command goes on where a stopped run was."
    )
    red_team(parse_config(RedTeamConfig, argv, "red_team.py", description))
