"""The text that the `train` backend trains on: the default text of assignment 1, tokenized once per data folder."""

import os
import shutil
from pathlib import Path

from cs336_basics.bpe.train_command import train_tokenizer
from cs336_basics.default_text import default_text_files
from cs336_basics.token_file import encode_file
from cs336_basics.training_config import TrainConfig
from cs336_basics.training_data import TRAIN_NAME, VALID_NAME, TrainingData, open_training_data
from cs336_scaling.server.settings import ServerSettings


def prepare_text(settings: ServerSettings) -> TrainingData:
    """Tokenize the text unless that has been done, and open the tokens.

    The folder of tokens appears whole or not at all, so a kill in between costs only time.
    """
    train = settings.train
    texts = settings.data_dir / "text"
    folder = texts / f"tokens-{train.tokenizer_vocab_size}-{train.train_bytes}-{train.valid_bytes}"
    if not folder.is_dir():
        _tokenize(texts, folder, settings)
    return open_training_data(
        TrainConfig(data_dir=str(folder), tokenizer_dir=str(folder / "tokenizer"), context_len=train.sequence_length)
    )


def _tokenize(texts: Path, folder: Path, settings: ServerSettings) -> None:
    train = settings.train
    train_text, valid_text = default_text_files(texts, train.train_bytes, train.valid_bytes)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        tokenizer = train_tokenizer(train_text, unfinished / "tokenizer", train.tokenizer_vocab_size)
        encode_file(tokenizer, train_text, unfinished / TRAIN_NAME)
        encode_file(tokenizer, valid_text, unfinished / VALID_NAME)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same result
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
