"""The command that turns documents into token files for training (`scripts/tokenize_documents.py`)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cs336_basics.bpe.vocab_files import OWN_FILE
from cs336_basics.command_line import UsageError
from cs336_basics.token_file import TokenFileInfo, read_sidecar
from cs336_data.default_documents import default_run
from cs336_data.executor_flags import add_executor_flags, make_engine
from cs336_data.pipeline.inputs import Unit, find_units
from cs336_data.tokenizer_choice import GPT2_URL, load_tokenizer, train_on_documents
from cs336_data.tokens import SPLITS, TokenCounts, tokenize_documents

DEFAULT_OUT = Path("data/tokens")
GPT2_FOLDER = Path("data/gpt2")
TOKENIZER_FOLDER = "tokenizer"
"""Of the tokenizer, in the folder of the tokens."""
_SMOKE_VOCAB_SIZE, _SMOKE_VALID_FRACTION = 1_000, 0.25


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Encode documents (JSON Lines with "text"; gzip, zstd or plain) as train.dat and valid.dat: flat '
        "token ids, uint16 up to 65,536 tokens, with <|endoftext|> after every document. The tokenizer is saved beside "
        "them. The same command goes on where a run was interrupted.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="*",
        help="files, folders or globs; without any, what scripts/filter_cc.py has kept (run first if need be)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder for the token files and the tokenizer")
    parser.add_argument(
        "--tokenizer", metavar="FOLDER",
        help="folder of a tokenizer, or gpt2; None: the one in --out, else one trained on the documents",
    )  # fmt: skip
    parser.add_argument(
        "--download", nargs="?", const=GPT2_URL, metavar="URL",
        help=f"with --tokenizer gpt2: fetch its files, to {GPT2_FOLDER}, from this address ({GPT2_URL} if none is "
        "given) unless they are there or in $CS336_DATA",
    )  # fmt: skip
    parser.add_argument("--vocab_size", type=int, default=10_000, help="of a tokenizer to be trained, in tokens")
    parser.add_argument(
        "--tokenizer_bytes", type=int, default=1_000_000_000, help="text that a tokenizer is trained on, at most"
    )
    parser.add_argument(
        "--valid_fraction", type=float, default=0.05,
        help="share of documents for valid.dat, 0 to 1; a hash of the text says which",
    )  # fmt: skip
    add_executor_flags(parser)
    parser.add_argument(
        "--smoke", action="store_true",
        help="the pipeline's small run, with a small vocabulary and a quarter for validation, in a folder of its own",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = _parser().parse_args(argv)
    if arguments.tokenizer_bytes < 1:
        raise UsageError(f"--tokenizer_bytes {arguments.tokenizer_bytes} is too few: at least 1 is needed")
    out = arguments.out / "smoke" if arguments.smoke else arguments.out
    with make_engine(arguments, out / "work" / "slurm") as engine:
        units = find_units(arguments.inputs or [default_run(arguments.smoke) / "kept"])
        tokenizer_dir = _choose_tokenizer(arguments, units, out / TOKENIZER_FOLDER)
        fraction = _SMOKE_VALID_FRACTION if arguments.smoke else arguments.valid_fraction
        counts = tokenize_documents(units, tokenizer_dir, out, engine, valid_fraction=fraction)
    _tell(out, counts)


def _choose_tokenizer(arguments: argparse.Namespace, units: Sequence[Unit], folder: Path) -> Path:
    """Put the tokenizer that the flags ask for into the folder, if it is not there."""
    if arguments.tokenizer is not None:
        load_tokenizer(arguments.tokenizer, GPT2_FOLDER, arguments.download).save(folder)
    elif not (folder / OWN_FILE).is_file():
        size = min(arguments.vocab_size, _SMOKE_VOCAB_SIZE) if arguments.smoke else arguments.vocab_size
        train_on_documents(units, folder, size, arguments.tokenizer_bytes, not arguments.quiet)
    return folder


def _tell(out: Path, counts: TokenCounts) -> None:
    for split, name in SPLITS.items():
        if num_documents := getattr(counts, split).num_documents:
            info = TokenFileInfo(**read_sidecar(out / name))
            print(f"{out / name}: {num_documents:,} documents, {info.summary()} ({info.dtype})")
        else:
            print(f"{out / name}: not written, since no document is for it")
    for reason, number in counts.bad.items():
        print(f"note: left out {number:,} times: {reason}")
    print(f"tokenizer: {out / TOKENIZER_FOLDER}")
