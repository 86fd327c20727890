"""Train a policy by PPO: `uv run python scripts/ppo.py`; the program is cs336_alignment/ppo/train.py."""

from cs336_alignment.ppo.train import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
