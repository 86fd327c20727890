"""Train a reward model on preference pairs; the program is cs336_alignment/reward_model/train.py."""

from cs336_alignment.reward_model.train import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
