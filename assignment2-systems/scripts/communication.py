"""Measure collectives between processes; see `cs336_systems/communication/command.py`."""

from cs336_basics.command_line import run_command
from cs336_systems.communication.command import main

if __name__ == "__main__":
    run_command(main)
