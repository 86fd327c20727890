"""Precision and recall of the filters on labeled data; the program is cs336_data/evaluation_command.py."""

from cs336_basics.command_line import run_command
from cs336_data.evaluation_command import main

if __name__ == "__main__":
    run_command(main)
