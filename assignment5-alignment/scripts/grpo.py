"""GRPO and its variants; see `cs336_alignment/grpo/train.py`."""

from cs336_alignment.grpo.train import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
