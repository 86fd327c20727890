"""Documents to token files: `uv run python scripts/tokenize_documents.py data/filtered/kept --tokenizer gpt2`."""

from cs336_basics.command_line import run_command
from cs336_data.tokenize_command import main

if __name__ == "__main__":
    run_command(main)
