"""The training program over processes; see `cs336_systems/train.py`."""

from cs336_basics.command_line import run_command
from cs336_systems.train import main

if __name__ == "__main__":
    run_command(main)
