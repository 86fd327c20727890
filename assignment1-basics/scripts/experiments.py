"""Run one of the handout's studies: `uv run python scripts/experiments.py learning_rate --smoke`."""

from cs336_basics.command_line import run_command
from cs336_basics.experiments.command import main

if __name__ == "__main__":
    run_command(main)
