"""Tokenize the training and the validation text; the program is cs336_basics/tokenize_command.py."""

from cs336_basics.command_line import run_command
from cs336_basics.tokenize_command import main

if __name__ == "__main__":
    run_command(main)
