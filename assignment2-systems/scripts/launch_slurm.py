"""The training program as a Slurm job; see `cs336_systems/parallel_training/slurm.py`."""

from cs336_basics.command_line import run_command
from cs336_systems.parallel_training.slurm import main

if __name__ == "__main__":
    run_command(main)
