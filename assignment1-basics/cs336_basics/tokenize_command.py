"""The command that turns the training and the validation text into token files (`scripts/tokenize_test.py`)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cs336_basics.bpe.train_command import DATA_DIR, DEFAULT_OUT, train_tokenizer
from cs336_basics.command_line import UsageError
from cs336_basics.default_text import default_text_files
from cs336_basics.token_file import encode_file
from cs336_basics.tokenizer import Tokenizer

TRAIN_NAME, VALID_NAME = "train.dat", "valid.dat"


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Tokenize a training and a validation text into train.dat and valid.dat, flat files of token ids.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tokenizer", type=Path, default=DEFAULT_OUT, help="folder that scripts/train_bpe.py wrote")
    default_text = "TinyStories in data/ if downloaded, else generated stories"
    parser.add_argument("--train_text", type=Path, help=f"UTF-8 text; None: {default_text}")
    parser.add_argument("--valid_text", type=Path, help=f"UTF-8 text; None: {default_text}")
    parser.add_argument("--out_dir", type=Path, default=DATA_DIR, help="folder for train.dat and valid.dat")
    parser.add_argument("--workers", type=int, help="threads or processes; None: one per core")
    arguments = parser.parse_args(argv)

    all_default = arguments.tokenizer == DEFAULT_OUT and arguments.train_text is None and arguments.valid_text is None
    is_empty = not arguments.tokenizer.is_dir() or not any(arguments.tokenizer.iterdir())
    if is_empty and not all_default:
        raise UsageError(
            f"there is no tokenizer in {arguments.tokenizer}; "
            f"`uv run python scripts/train_bpe.py --out {arguments.tokenizer}` makes one (--input names the text)"
        )
    train_text, valid_text = arguments.train_text, arguments.valid_text
    if train_text is None or valid_text is None:
        default_train, default_valid = default_text_files(DATA_DIR)
        train_text, valid_text = train_text or default_train, valid_text or default_valid
    for text_path in (train_text, valid_text):
        if not text_path.is_file():
            raise UsageError(f"there is no text file {text_path}")
    if is_empty:
        print(f"There is no tokenizer in {arguments.tokenizer} yet: training one on {train_text}.")
        tokenizer = train_tokenizer(train_text, arguments.tokenizer, num_workers=arguments.workers)
    else:
        tokenizer = Tokenizer.from_directory(arguments.tokenizer)

    for text_path, name in ((train_text, TRAIN_NAME), (valid_text, VALID_NAME)):
        out_path = arguments.out_dir / name
        info = encode_file(tokenizer, text_path, out_path, num_workers=arguments.workers)
        print(f"{out_path}: {info.summary()} ({info.dtype})")
