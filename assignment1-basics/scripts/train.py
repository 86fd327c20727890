"""The training program, the same as `cs336_basics/train.py`."""

from cs336_basics.command_line import run_command
from cs336_basics.train import main

if __name__ == "__main__":
    run_command(main)
