"""Expert iteration; see `cs336_alignment/expert_iteration/train.py`."""

from cs336_alignment.expert_iteration.train import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
