"""How far each kind of parallelism scales; see `cs336_systems/parallel_planner.py`."""

from cs336_basics.command_line import run_command
from cs336_systems.parallel_planner import main

if __name__ == "__main__":
    run_command(main)
