"""Train a model on the documents: `uv run python scripts/train_model.py --config configs/train_gpt2_small.yaml`."""

from cs336_basics.command_line import run_command
from cs336_data.training_run import main

if __name__ == "__main__":
    run_command(main)
