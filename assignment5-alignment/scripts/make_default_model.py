"""Pretrain the tiny base model that every program starts from by default (see `cs336_alignment/default_task/`)."""

from cs336_alignment.default_task.command import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
