"""Compare our text of pages with the WET files'; the program is cs336_data/compare_wet_command.py."""

from cs336_basics.command_line import run_command
from cs336_data.compare_wet_command import main

if __name__ == "__main__":
    run_command(main)
