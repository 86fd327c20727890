"""Budget, experiments and final submission of a training API (see `cs336_scaling/client/`)."""

from cs336_basics.command_line import run_command
from cs336_scaling.client.command import main

if __name__ == "__main__":
    run_command(main)
