"""Finding the tokens to train on, and making them from the default text where there are none."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from cs336_basics.command_line import UsageError
from cs336_basics.default_text import TRAIN_BYTES, VALID_BYTES, default_text_files
from cs336_basics.token_file import encode_file, load_tokens, read_sidecar
from cs336_basics.tokenizer import Tokenizer
from cs336_basics.trainer.data_loading import check_dataset
from cs336_basics.training_config import TrainConfig

DEFAULT_DATA_DIR = "data"
DEFAULT_VOCAB_SIZE = 10_000
TRAIN_NAME, VALID_NAME = "train.dat", "valid.dat"


@dataclass(frozen=True)
class TrainingData:
    """Token ids to train on and to validate on, as memory maps, the number of ids there are, and the fingerprint of the
    tokenizer that made them; None where the files do not say."""

    train: Int[np.ndarray, " train"]
    valid: Int[np.ndarray, " valid"]
    vocab_size: int
    tokenizer_sha256: str | None


def open_training_data(config: TrainConfig, announce: Callable[[str], None] = print) -> TrainingData:
    """Map `train.dat` and `valid.dat` of the configured folder; the default folder is filled first if need be.

    Raises:
        UsageError: a named folder lacks the files, the vocabulary's size is unknown or too small, the files are of
            different tokenizers, or a file is damaged or too short.
    """
    folder = Path(config.data_dir or DEFAULT_DATA_DIR)
    paths = [folder / TRAIN_NAME, folder / VALID_NAME]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing and config.data_dir is not None:
        raise UsageError(
            f"{' and '.join(missing)} not found; `python scripts/train_bpe.py` and then "
            "`python scripts/tokenize_test.py` make them (see their --help for other folders)"
        )
    if missing:
        make_default_data(folder, Path(config.tokenizer_dir), announce)
    sidecars = [sidecar for path in paths if (sidecar := read_sidecar(path)) is not None]
    fingerprints = {sidecar["tokenizer_sha256"] for sidecar in sidecars}
    if len(fingerprints) > 1:
        raise UsageError(
            f"{paths[0]} and {paths[1]} were made by different tokenizers; `python scripts/tokenize_test.py` makes both"
        )
    sizes = [sidecar["vocab_size"] for sidecar in sidecars]
    vocab_size = config.vocab_size if config.vocab_size is not None else max(sizes, default=None)
    if vocab_size is None:
        raise UsageError(f"{paths[0]} has no .json file beside it that says its vocabulary's size; give --vocab_size")
    if sizes and vocab_size < max(sizes):
        raise UsageError(f"vocab_size {vocab_size} is too small for {folder}, whose ids go up to {max(sizes) - 1}")
    train, valid = (load_tokens(path, max(sizes, default=vocab_size)) for path in paths)
    for tokens in (train, valid):
        check_dataset(tokens, config.context_len)
    return TrainingData(train, valid, vocab_size, next(iter(fingerprints), None))


def make_default_data(
    data_dir: Path,
    tokenizer_dir: Path,
    announce: Callable[[str], None] = print,
    *,
    vocab_size: int = DEFAULT_VOCAB_SIZE,
    train_bytes: int = TRAIN_BYTES,
    valid_bytes: int = VALID_BYTES,
) -> None:
    """Write the default text, train a tokenizer on it if `tokenizer_dir` holds none, and tokenize the text.

    Args:
        data_dir: gets the text and `train.dat`, `valid.dat`.
        tokenizer_dir: the tokenizer's folder.
        announce: is told what is being done.
        vocab_size: of a new tokenizer; less where the text cannot fill it.
        train_bytes, valid_bytes: sizes of generated text.
    """
    from cs336_basics.bpe.train_command import train_tokenizer

    announce(f"no {TRAIN_NAME} in {data_dir}: making it from the default text")
    train_text, valid_text = default_text_files(data_dir, train_bytes, valid_bytes)
    if tokenizer_dir.is_dir() and any(tokenizer_dir.iterdir()):
        tokenizer = Tokenizer.from_directory(tokenizer_dir)
    else:
        announce(f"training a tokenizer of {vocab_size:,} tokens on {train_text}")
        tokenizer = train_tokenizer(train_text, tokenizer_dir, vocab_size)
    encode_file(tokenizer, train_text, data_dir / TRAIN_NAME)
    encode_file(tokenizer, valid_text, data_dir / VALID_NAME)
