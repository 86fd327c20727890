"""The command that trains a BPE tokenizer on a text (`scripts/train_bpe.py`)."""

import argparse
import resource
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from cs336_basics.bpe.pretokenize import check_special_tokens
from cs336_basics.bpe.train import METHODS, train_bpe
from cs336_basics.command_line import UsageError
from cs336_basics.default_text import default_text_files
from cs336_basics.tokenizer import END_OF_TEXT, Tokenizer

DEFAULT_VOCAB_SIZE = 10_000
DEFAULT_OUT = Path("tokenizer")
DATA_DIR = Path("data")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Train a byte-level BPE tokenizer on a text and write vocab.json, merges.txt and bpe.json.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--input", type=Path, help="UTF-8 text; None: TinyStories in data/ if downloaded, else generated stories"
    )
    parser.add_argument("--vocab_size", type=int, default=DEFAULT_VOCAB_SIZE, help="tokens, special ones included")
    parser.add_argument(
        "--special_token",
        action="append",
        metavar="TEXT",
        help=f"a special token, a border no merge crosses; may be repeated; None: {END_OF_TEXT}",
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to write")
    parser.add_argument("--workers", type=int, help="processes or threads; None: one per core")
    parser.add_argument("--method", choices=METHODS, default="auto", help="plain Python, numba, or by the work's size")
    arguments = parser.parse_args(argv)
    train_tokenizer(
        arguments.input or default_text_files(DATA_DIR)[0],
        arguments.out,
        arguments.vocab_size,
        arguments.special_token or [END_OF_TEXT],
        arguments.workers,
        arguments.method,
    )


def train_tokenizer(
    text_path: Path,
    out_dir: Path,
    vocab_size: int = DEFAULT_VOCAB_SIZE,
    special_tokens: Sequence[str] = (END_OF_TEXT,),
    num_workers: int | None = None,
    method: str = "auto",
) -> Tokenizer:
    """Train on a text, save to a folder, and print what came out: size, longest tokens, time and peak memory.

    Raises:
        UsageError: as `train_bpe`; or what comes out could not be saved.
    """
    for token in check_special_tokens(special_tokens):
        if len(token.encode()) == 1:
            raise UsageError(
                f"special token {token!r} is not allowed: it must have at least two bytes, since every single byte is "
                "an ordinary token already and vocab.json cannot hold both"
            )
    existing = next(path for path in (out_dir, *out_dir.parents) if path.exists())
    if not existing.is_dir():
        raise UsageError(f"{out_dir} cannot be the folder to write: {existing} is a file")
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vocab, merges = train_bpe(
            text_path, vocab_size, list(special_tokens), num_workers=num_workers, method=method, progress=True
        )
    seconds = time.perf_counter() - began
    tokenizer = Tokenizer(vocab, merges, special_tokens)
    tokenizer.save(out_dir)
    print(f"{text_path}: {len(vocab):,} tokens ({len(merges):,} merges) in {seconds:.1f} s, {_peak_memory()}")
    for warning in caught:
        print(f"note: {warning.message}")
    longest = sorted((left + right for left, right in merges), key=len, reverse=True)[:5]
    print("longest tokens:", ", ".join(repr(token.decode(errors="replace")) for token in longest) or "none")
    print(f"wrote {out_dir}")
    return tokenizer


def _peak_memory() -> str:
    """The most memory this process and its largest worker have held."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    own, worker = (
        resource.getrusage(who).ru_maxrss * unit / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return f"peak memory {own:.0f} MB" + (f", {worker:.0f} MB in a worker" if worker else "")
