"""Train a BPE tokenizer on a text; the program is cs336_basics/bpe/train_command.py."""

from cs336_basics.bpe.train_command import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
