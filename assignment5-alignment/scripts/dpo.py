"""Train on preference pairs: `uv run python scripts/dpo.py`; the program is cs336_alignment/preference/dpo.py."""

from cs336_alignment.preference.dpo import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
