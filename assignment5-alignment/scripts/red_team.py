"""Attacks on a model and how often they succeed; the program is cs336_alignment/evaluation/red_team_command.py."""

from cs336_alignment.evaluation.red_team_command import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
