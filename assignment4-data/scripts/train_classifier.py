"""Train a filter's model on data given to it; the program is cs336_data/classifier_training.py."""

from cs336_basics.command_line import run_command
from cs336_data.classifier_training import main

if __name__ == "__main__":
    run_command(main)
