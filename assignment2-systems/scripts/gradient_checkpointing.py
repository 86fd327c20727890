"""Find the number of layers to checkpoint together that needs the least memory.

uv run python scripts/gradient_checkpointing.py --size small --context_len 256
"""

from cs336_basics.command_line import run_command
from cs336_systems.checkpointing.study import main

if __name__ == "__main__":
    run_command(main)
