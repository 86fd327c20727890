"""Compare plain, compiled and flash attention over head dimension and length.

uv run python scripts/attention_study.py --d_head 64 --length 256 1024 4096
"""

from cs336_basics.command_line import run_command
from cs336_systems.attention_study import main

if __name__ == "__main__":
    run_command(main)
