"""A model's figures on a benchmark; the program is cs336_alignment/evaluation/command.py."""

from cs336_alignment.evaluation.command import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
