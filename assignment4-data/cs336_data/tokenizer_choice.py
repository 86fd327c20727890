"""Which tokenizer encodes the documents: a folder's, GPT-2's, or a new one trained on the documents themselves."""

import os
from collections.abc import Sequence
from itertools import chain, takewhile
from pathlib import Path

from tqdm import tqdm

from cs336_basics.bpe.train_command import train_tokenizer
from cs336_basics.command_line import UsageError
from cs336_basics.download import download
from cs336_basics.tokenizer import END_OF_TEXT, Tokenizer
from cs336_data.document_encoding import well_formed
from cs336_data.pipeline.inputs import Unit
from cs336_data.pipeline.pages import PageCounts, read_pages

GPT2 = "gpt2"
GPT2_FILES = ("gpt2_vocab.json", "gpt2_merges.txt")
GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"
# The names at the source and the checksums by which tiktoken checks the same files (tiktoken_ext/openai_public.py).
GPT2_SOURCES = {
    "gpt2_vocab.json": ("encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "gpt2_merges.txt": ("vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}


def load_tokenizer(name: str, gpt2_folder: Path, url: str | None = None) -> Tokenizer:
    """A tokenizer by the folder it lies in, or GPT-2's by the name "gpt2".

    Args:
        name: a folder with bpe.json, with vocab.json and merges.txt, or with gpt2_vocab.json and gpt2_merges.txt; or
            "gpt2".
        gpt2_folder: where GPT-2's files are looked for, before `$CS336_DATA/tokenizer`, and downloaded to.
        url: where to download GPT-2's files from if they are in neither; None: nowhere.

    Raises:
        UsageError: there is no such tokenizer, its files are damaged, or the download failed.
    """
    if name != GPT2:
        if all((Path(name) / file).is_file() for file in GPT2_FILES):
            return _gpt2_from(Path(name))
        return Tokenizer.from_directory(name)
    folders = [gpt2_folder]
    if os.environ.get("CS336_DATA"):
        folders.append(Path(os.environ["CS336_DATA"]) / "tokenizer")
    for folder in folders:
        if all((folder / file).is_file() for file in GPT2_FILES):
            return _gpt2_from(folder)
    if url is None:
        places = " nor in ".join(map(str, folders))
        raise UsageError(f"GPT-2's files ({' and '.join(GPT2_FILES)}) are not in {places}; --download fetches them")
    for file, (remote, sha256) in GPT2_SOURCES.items():
        download(f"{url}/{remote}", gpt2_folder / file, sha256=sha256)
    return _gpt2_from(gpt2_folder)


def _gpt2_from(folder: Path) -> Tokenizer:
    vocab, merges = (folder / file for file in GPT2_FILES)
    return Tokenizer.from_files(vocab, merges, [END_OF_TEXT])


def train_on_documents(
    units: Sequence[Unit], folder: Path, vocab_size: int, max_bytes: int, progress: bool = True
) -> Tokenizer:
    """Train a tokenizer on the documents of some shards and save it.

    Args:
        units: the shards, taken in order.
        folder: for the tokenizer; for the time of the training, the text is beside it.
        vocab_size: tokens, `<|endoftext|>` included; fewer where the text cannot fill it.
        max_bytes: text to train on; documents beyond it are left out.
        progress: show a progress bar.

    Raises:
        UsageError: there are no documents, or the vocabulary's size is not allowed.
    """
    text_path = folder.with_name(f"{folder.name}-text.txt")
    text_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            open(text_path, "wb") as file,
            tqdm(
                desc="text for the tokenizer", total=max_bytes, unit="B", unit_scale=True, disable=not progress
            ) as bar,
        ):
            pages = chain.from_iterable(read_pages(unit.path, PageCounts()) for unit in units)
            for page in takewhile(lambda _: file.tell() < max_bytes, pages):
                bar.update(file.write(well_formed(page.text or "")[0] + END_OF_TEXT.encode()))
            if not file.tell():
                raise UsageError("there are no documents to train a tokenizer on")
        return train_tokenizer(text_path, folder, vocab_size)
    finally:
        text_path.unlink(missing_ok=True)
