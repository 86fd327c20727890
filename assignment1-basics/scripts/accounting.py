"""Count a model's parameters, floating-point operations and memory.

uv run python scripts/accounting.py --preset gpt2-xl --d_ff 6400
"""

from cs336_basics.accounting import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
