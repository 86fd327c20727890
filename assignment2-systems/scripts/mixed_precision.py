"""Show what half precision does to long sums, and which parts of a model autocast changes."""

from cs336_basics.command_line import run_command
from cs336_systems.profiling.mixed_precision import main

if __name__ == "__main__":
    run_command(main)
