"""Compare the ways of data parallelism: a step's time, and how much of it waits for communication.

uv run python scripts/data_parallel.py --size small --processes 2 --batch_size 2
"""

from cs336_basics.command_line import run_command
from cs336_systems.data_parallel.command import main

if __name__ == "__main__":
    run_command(main)
