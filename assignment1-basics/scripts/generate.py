"""Continue a text with a trained model; the same program as cs336_basics/generate.py."""

from cs336_basics.command_line import run_command
from cs336_basics.generate import main

if __name__ == "__main__":
    run_command(main)
