"""The training API's server: `serve`, `add-user`, `list-users`, `worker` (see --help)."""

from cs336_basics.command_line import run_command
from cs336_scaling.server.command import main

if __name__ == "__main__":
    run_command(main)
