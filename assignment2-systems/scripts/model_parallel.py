"""Train on a mesh of data, pipeline and tensor parallelism; see `cs336_systems/model_parallel_demonstration.py`."""

from cs336_basics.command_line import run_command
from cs336_systems.model_parallel_demonstration import main

if __name__ == "__main__":
    run_command(main)
