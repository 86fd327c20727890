"""Instruction data as token ids: each prompt and response in the Alpaca template is a document.

Hundreds of thousands of documents fit: texts are read and tokenized in batches, and what stays is one flat array of
ids (2 or 4 bytes each), on disk if a cache folder is given, and where each document begins.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from cs336_alignment.prompts import alpaca_prompt
from cs336_alignment.records import json_records, text_field
from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError

_DOCUMENTS_AT_ONCE = 1000


class TokenizedDocuments:
    """Documents one behind the other, each with its special tokens.

    Args:
        tokens: the ids of all documents.
        offsets: where each document begins, and the end of the last one.
    """

    def __init__(self, tokens: Int[np.ndarray, " tokens"], offsets: Int[np.ndarray, " documents_and_one"]) -> None:
        self.tokens, self.offsets = tokens, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1


def document_text(prompt: str, response: str) -> str:
    """The Alpaca template with a prompt and its response, without the newline that ends the template."""
    return alpaca_prompt(prompt) + response


def document_texts(path: str | os.PathLike) -> Iterator[str]:
    """The documents of a .jsonl or .jsonl.gz file of objects with "prompt" and "response".

    Raises:
        UsageError: a line is no such object.
    """
    for place, record in json_records(Path(path)):
        yield document_text(text_field(record, "prompt", place), text_field(record, "response", place))


def tokenize_documents(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], progress: bool = False
) -> TokenizedDocuments:
    """Tokenize documents, in memory.

    A document's ids are what the tokenizer makes of its text, special tokens included (Llama 3 puts a
    beginning-of-text token before it, Qwen nothing), and an end-of-sequence token, unless the tokenizer has put one
    there itself.

    Args:
        tokenizer: any Hugging Face tokenizer with an end-of-sequence token.
        texts: at least one.
        progress: show a progress bar.

    Raises:
        UsageError: the tokenizer has no end-of-sequence token.
    """
    pieces, lengths_of_batches = zip(*_token_batches(tokenizer, texts, progress), strict=True)
    return TokenizedDocuments(np.concatenate(pieces), _offsets(lengths_of_batches))


def tokenize_file(
    tokenizer: PreTrainedTokenizerBase, path: str | os.PathLike, cache_dir: str | os.PathLike, progress: bool = False
) -> TokenizedDocuments:
    """`tokenize_documents` of a file, on disk: done once for a file and a tokenizer.

    Args:
        path: as for `document_texts`.
        cache_dir: holds the ids of this and other files.

    Raises:
        UsageError: as `document_texts` and `tokenize_documents`; nothing is left half-written.
    """
    stem = Path(cache_dir) / _fingerprint(tokenizer, path)
    tokens_path, offsets_path = stem.with_suffix(".tokens"), stem.with_suffix(".offsets.npy")
    if not offsets_path.exists():  # it is written last
        lengths_of_batches = []
        with atomic_write(tokens_path) as file:
            for ids, lengths in _token_batches(tokenizer, document_texts(path), progress):
                file.write(ids.tobytes())
                lengths_of_batches.append(lengths)
        with atomic_write(offsets_path) as file:
            np.save(file, _offsets(lengths_of_batches))
    return TokenizedDocuments(np.memmap(tokens_path, _id_type(tokenizer), mode="r"), np.load(offsets_path))


def _id_type(tokenizer: PreTrainedTokenizerBase) -> np.dtype:
    return np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)


def _token_batches(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], progress: bool
) -> Iterator[tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " documents"]]]:
    """The ids of some documents at a time, one behind the other, and each one's number of ids."""
    end = tokenizer.eos_token_id
    if end is None:
        raise UsageError("the tokenizer has no end-of-sequence token, which packed documents need between them")
    texts = iter(texts)
    with tqdm(desc="tokenizing", unit="document", disable=not progress) as bar:
        while batch := list(islice(texts, _DOCUMENTS_AT_ONCE)):
            documents = tokenizer(batch, return_attention_mask=False)["input_ids"]
            documents = [ids if ids and ids[-1] == end else [*ids, end] for ids in documents]
            lengths = np.array([len(ids) for ids in documents], dtype=np.int64)
            ids = np.fromiter((token for ids in documents for token in ids), _id_type(tokenizer), lengths.sum())
            yield ids, lengths
            bar.update(len(batch))


def _offsets(lengths_of_batches: Sequence[Int[np.ndarray, " documents"]]) -> Int[np.ndarray, " documents_and_one"]:
    return np.concatenate([[0], np.cumsum(np.concatenate(lengths_of_batches))])


def _fingerprint(tokenizer: PreTrainedTokenizerBase, path: str | os.PathLike) -> str:
    """A name for the ids that this tokenizer makes of this file."""
    digest = hashlib.sha256(alpaca_prompt("").encode())
    sample = "".join(map(chr, range(32, 512)))
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    backend = getattr(tokenizer, "backend_tokenizer", None)
    digest.update(repr((vocabulary, backend and backend.to_str(), tokenizer(sample)["input_ids"])).encode())
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:24]
