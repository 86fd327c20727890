"""Export a trained model and its tokenizer as a folder that transformers and vLLM open.

uv run python scripts/export_hf.py --checkpoint checkpoints/checkpoint_final.pt --tokenizer tokenizer --out hf_model
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cs336_basics.command_line import run_command
from cs336_basics.generate import load_trained
from cs336_basics.hf_llama import export_llama


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Export a trained model and its tokenizer as a folder that transformers and vLLM open.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("checkpoints/checkpoint_final.pt"), help="trained model"
    )
    parser.add_argument("--tokenizer", type=Path, default=Path("tokenizer"), help="folder of the tokenizer")
    parser.add_argument("--out", type=Path, default=Path("hf_model"), help="folder to write")
    arguments = parser.parse_args(argv)
    model, _ = load_trained(arguments.checkpoint, arguments.tokenizer, "cpu")
    export_llama(model, arguments.out, arguments.tokenizer)
    print(
        f"wrote {arguments.out}: open it with transformers.AutoModelForCausalLM.from_pretrained({str(arguments.out)!r})"
    )


if __name__ == "__main__":
    run_command(main)
