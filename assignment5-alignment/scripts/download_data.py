"""Download benchmarks and preference data; the program is cs336_alignment/evaluation/download_command.py."""

from cs336_alignment.evaluation.download_command import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
