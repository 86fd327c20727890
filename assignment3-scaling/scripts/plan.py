"""Plan a large training run from a budget of small ones.

uv run python scripts/plan.py --edition 2026 --server http://127.0.0.1:8000 --api-key KEY
"""

from cs336_basics.command_line import run_command
from cs336_scaling.planner.command import main

if __name__ == "__main__":
    run_command(main)
