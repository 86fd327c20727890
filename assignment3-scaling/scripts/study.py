"""A small isoFLOP study that really trains on this machine (see `cs336_scaling/study/`)."""

from cs336_basics.command_line import run_command
from cs336_scaling.study.command import main

if __name__ == "__main__":
    run_command(main)
