"""Supervised fine-tuning; `--help` lists every setting."""

from cs336_alignment.sft.train import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
