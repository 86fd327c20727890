"""Time the handout's model sizes, and count their peak memory.

uv run python scripts/benchmark.py --sizes small medium --context_len 128 256 --dtype float32 bfloat16
"""

from cs336_basics.command_line import run_command
from cs336_systems.profiling.benchmark import main

if __name__ == "__main__":
    run_command(main)
