"""Remove repeated lines or near-duplicate documents; the program is cs336_data/dedup/command.py."""

from cs336_basics.command_line import run_command
from cs336_data.dedup.command import main

if __name__ == "__main__":
    run_command(main)
