"""Fit scaling laws to a table of training runs.

uv run python scripts/fit.py runs.json --methods lowest quadratic --targets 1e23 1e24
"""

from cs336_basics.command_line import run_command
from cs336_scaling.fitting.command import main

if __name__ == "__main__":
    run_command(main)
