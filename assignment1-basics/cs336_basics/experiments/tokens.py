"""The tokenized text a study trains on, made once for all studies that share it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs336_basics.atomic_file import atomic_write
from cs336_basics.bpe import train_bpe
from cs336_basics.command_line import UsageError
from cs336_basics.datasets import DATASETS
from cs336_basics.default_text import default_text_files, story_files
from cs336_basics.experiments.study import Corpus, Scale
from cs336_basics.token_file import encode_file
from cs336_basics.tokenizer import END_OF_TEXT, Tokenizer

SMOKE_BYTES = 200_000, 40_000


@dataclass(frozen=True)
class CorpusFolders:
    """Where the tokens (`train.dat`, `valid.dat`) and their tokenizer are, and what text they are of."""

    data_dir: Path
    tokenizer_dir: Path
    description: str


def corpus_texts(corpus: Corpus, scale: Scale, text_dir: Path, smoke_dir: Path) -> tuple[Path, Path]:
    """The training and the validation text.

    Args:
        corpus: "tinystories" falls back on generated stories; "openwebtext" must have been downloaded.
        scale: "smoke" always takes a few generated stories.
        text_dir: the folder of downloaded texts.
        smoke_dir: where the texts of the smoke scale are written.

    Raises:
        UsageError: OpenWebText is not there.
    """
    if scale == "smoke":
        return story_files(smoke_dir, *SMOKE_BYTES)
    if corpus == "tinystories":
        return default_text_files(text_dir)
    paths = tuple(text_dir / DATASETS[name].file_name for name in ("owt-train", "owt-valid"))
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} not found; `cs336 data get owt` downloads OpenWebText (17 GB of disk), "
            "--data_dir names another folder, and --smoke does without it"
        )
    return paths


def prepare_tokens(
    corpus: Corpus, vocab_size: int, scale: Scale, text_dir: Path, out: Path, say: Callable[[str], None], progress: bool
) -> CorpusFolders:
    """Train a tokenizer on the corpus and encode it, unless that was done for these very texts.

    Args:
        corpus, scale, text_dir: as in `corpus_texts`.
        vocab_size: of the tokenizer.
        out: the folder of all experiments; the tokens come into a folder of their own in it.
        say: is told what is being done.
        progress: show progress bars.
    """
    folder = out / "tokens" / f"{corpus}_{scale}_{vocab_size}"
    train_text, valid_text = corpus_texts(corpus, scale, text_dir, folder)
    folders = CorpusFolders(folder / "data", folder / "tokenizer", f"{train_text.name} and {valid_text.name}")
    record_path = folder / "made_from.json"
    made_from = {"vocab_size": vocab_size, "texts": [_identity(train_text), _identity(valid_text)]}
    try:
        if json.loads(record_path.read_text(encoding="utf-8")) == made_from:
            return folders
    except (OSError, ValueError):
        pass
    say(f"training a tokenizer of {vocab_size:,} tokens on {train_text}")
    vocab, merges = train_bpe(train_text, vocab_size, [END_OF_TEXT], progress=progress)
    tokenizer = Tokenizer(vocab, merges, [END_OF_TEXT])
    tokenizer.save(folders.tokenizer_dir)
    for text, name in ((train_text, "train.dat"), (valid_text, "valid.dat")):
        info = encode_file(tokenizer, text, folders.data_dir / name, progress=progress)
        say(f"{name}: {info.summary()}")
    with atomic_write(record_path, "w") as file:
        json.dump(made_from, file, indent=1)
    return folders


def _identity(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"path": str(path.resolve()), "bytes": status.st_size, "changed_ns": status.st_mtime_ns}
