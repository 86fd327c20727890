"""The whole chain on the default task, measured over several seeds (see `cs336_alignment/default_run/`)."""

from cs336_alignment.default_run.command import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
