"""Look at kept and rejected documents: `uv run python scripts/look_at_data.py data/filtered`."""

from cs336_basics.command_line import run_command
from cs336_data.browse.command import main

if __name__ == "__main__":
    run_command(main)
