"""Documents packed without padding: one behind the other, cut into pieces of one length."""

import os

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from cs336_alignment.sft.documents import TokenizedDocuments, document_texts, tokenize_documents, tokenize_file
from cs336_basics.command_line import UsageError


class PackedDocuments(Dataset[dict[str, Tensor]]):
    """Non-overlapping pieces of documents laid one behind the other; what is too short for a last piece is dropped.

    With the stream t of all ids, piece i has the inputs t[i n : (i + 1) n] and the labels t[i n + 1 : (i + 1) n + 1].
    A piece may begin or end within a document, and attention reaches over the documents in it.

    Args:
        documents: the ids.
        seq_length: n, the tokens of a piece.
        order: the order of the documents; None is that of the file.

    Raises:
        UsageError: `seq_length` is below 1, or the documents do not fill a piece.
    """

    def __init__(
        self, documents: TokenizedDocuments, seq_length: int, order: Int[np.ndarray, " documents"] | None = None
    ) -> None:
        if seq_length < 1:
            raise UsageError(f"seq_length is {seq_length}; allowed is any whole number of at least 1")
        self.documents, self.seq_length = documents, seq_length
        self.order = np.arange(len(documents)) if order is None else order
        lengths = np.diff(documents.offsets)[self.order]
        # Only places are permuted, the ids stay where they are.
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.num_pieces = int(max(0, self.starts[-1] - 1) // seq_length)
        if self.num_pieces == 0:
            raise UsageError(
                f"seq_length is {seq_length}, but all documents together have {self.starts[-1]} tokens; allowed is less"
            )

    def __len__(self) -> int:
        return self.num_pieces

    def __getitem__(self, index: int) -> dict[str, Int[Tensor, " seq_length"]]:
        """Piece `index`: "input_ids" and "labels".

        Raises:
            IndexError: there is no such piece.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"piece {index} of {len(self)}")
        start = index % len(self) * self.seq_length
        ids = torch.from_numpy(self._stream(start, start + self.seq_length + 1))
        return {"input_ids": ids[:-1], "labels": ids[1:]}

    def _stream(self, start: int, end: int) -> Int[np.ndarray, " tokens"]:
        """The ids at the places from `start` to `end` of the documents in their order."""
        first, last = np.searchsorted(self.starts, [start, end - 1], side="right") - 1
        pieces = []
        for place in range(first, last + 1):
            begin, end_of_document = self.documents.offsets[self.order[place] :][:2]
            shift = begin - self.starts[place]  # from places in the stream to those in the array
            pieces.append(self.documents.tokens[max(begin, start + shift) : min(end_of_document, end + shift)])
        return np.concatenate(pieces).astype(np.int64)


class PackedSFTDataset(PackedDocuments):
    """Instruction data in the Alpaca template, packed.

    Args:
        tokenizer: any Hugging Face tokenizer with an end-of-sequence token; see `tokenize_documents`.
        dataset_path: a .jsonl or .jsonl.gz file of objects with "prompt" and "response".
        seq_length: tokens of a piece.
        shuffle: put the documents in random order before packing.
        seed: of that order; None draws it from torch's global generator.
        cache_dir: keep the ids in this folder for the next time.
        progress: show a progress bar.

    Raises:
        UsageError: the file, the tokenizer or the length cannot be used.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        dataset_path: str | os.PathLike,
        seq_length: int,
        shuffle: bool,
        *,
        seed: int | None = None,
        cache_dir: str | os.PathLike | None = None,
        progress: bool = False,
    ) -> None:
        if cache_dir is None:
            documents = tokenize_documents(tokenizer, document_texts(dataset_path), progress)
        else:
            documents = tokenize_file(tokenizer, dataset_path, cache_dir, progress)
        order = None
        if shuffle:
            seed = int(torch.randint(2**62, ())) if seed is None else seed
            order = np.random.default_rng(seed).permutation(len(documents))
        super().__init__(documents, seq_length, order)
