"""The tokenizer: text to ids by GPT-2's pre-tokens and byte-pair merges, and ids back to text.

Encoding a pre-token applies the merge with the lowest rank (the one learned first) until none applies. Pre-tokens
repeat (a text is mostly its few thousand commonest words), so their ids are kept in a bounded cache. Long texts go to
the fast path; the ids are the same.

Source: Sennrich, Haddow and Birch (2016) for the merges, Radford et al. (2019) for bytes and pre-tokens.
"""

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from cs336_basics.bpe.pretokenize import (
    check_special_tokens,
    pretokens,
    special_token_pattern,
    split_at_special_tokens,
)
from cs336_basics.bpe.text_blocks import cut_into_blocks
from cs336_basics.command_line import UsageError

if TYPE_CHECKING:
    from cs336_basics.bpe.fast.encoding import FastEncoder

END_OF_TEXT = "<|endoftext|>"

CACHE_ENTRIES = 1 << 16
"""Pre-tokens whose ids `encode` remembers; a full cache is emptied."""
STREAM_CACHE_ENTRIES = 1 << 11
"""The same for `encode_iterable`, which may add no more than a few hundred kilobytes to the process."""
STREAM_BLOCK_SIZE = 1 << 13
"""Bytes of text that `encode_iterable` encodes at a time."""
LONGEST_CACHED = 64
"""Characters; longer pre-tokens are rare and would fill the cache."""
LONG_PRETOKEN = 100
"""Bytes from which on a pre-token is merged with a heap instead of by scanning for the best pair."""
GREATEST_ID = (1 << 32) - 1
"""Token files and the fast path hold ids in 32 bits."""
FAST_FROM = 1 << 23
"""Characters from which on loading the fast path pays; once it is loaded, `FAST_WHEN_LOADED` applies."""
FAST_WHEN_LOADED = 1 << 8


class Tokenizer:
    """A byte-level BPE tokenizer.

    Attributes:
        vocab: id -> bytes, special tokens included.
        merges: the merges as pairs of byte strings, the earliest first.
        special_tokens: the special tokens; each is one id wherever its text appears, and of several that start at the
            same place the longest counts.
    """

    def __init__(
        self,
        vocab: dict[int, bytes],
        merges: Sequence[tuple[bytes, bytes]],
        special_tokens: Sequence[str] | None = None,
    ) -> None:
        """Build a tokenizer; special tokens that the vocabulary lacks get the next free ids, in the order given.

        Raises:
            UsageError: a special token is empty or given twice, an id does not fit into 32 bits, or a merge names bytes
                that are no token of the vocabulary.
        """
        self.vocab = dict(vocab)
        self.merges = [(bytes(left), bytes(right)) for left, right in merges]
        self.special_tokens = check_special_tokens(special_tokens or [])

        # Where two ids have the same bytes, text is encoded with the lower one; a special token has the higher one,
        # since training puts special tokens last.
        self._id_of: dict[bytes, int] = {}
        highest_id_of: dict[bytes, int] = {}
        for token_id in sorted(self.vocab):
            self._id_of.setdefault(self.vocab[token_id], token_id)
            highest_id_of[self.vocab[token_id]] = token_id
        self._special_ids: dict[str, int] = {}
        for token in self.special_tokens:
            data = token.encode()
            if data not in highest_id_of:
                new_id = max(self.vocab, default=-1) + 1
                self.vocab[new_id] = data
                highest_id_of[data] = new_id
            self._special_ids[token] = highest_id_of[data]
        for token_id in self.vocab:
            if not 0 <= token_id <= GREATEST_ID:
                raise UsageError(f"token id {token_id} is not allowed: ids are 0 to {GREATEST_ID}")
        self._special_pattern = special_token_pattern(self.special_tokens)
        self._id_of_byte = [self._id_of.get(bytes([byte]), -1) for byte in range(256)]

        # (left id, right id) -> (rank, id of the merged token)
        self._merge_of: dict[tuple[int, int], tuple[int, int]] = {}
        for rank, (left, right) in enumerate(self.merges):
            try:
                pair = (self._id_of[left], self._id_of[right])
                self._merge_of.setdefault(pair, (rank, self._id_of[left + right]))
            except KeyError as error:
                raise UsageError(
                    f"merge {rank + 1}, {left!r} + {right!r}, does not fit the vocabulary: "
                    f"{error.args[0]!r} is no token"
                ) from None
        self._cache: dict[str, tuple[int, ...]] = {}
        self._idle_encoders: list[FastEncoder] = []

    @classmethod
    def from_files(
        cls,
        vocab_filepath: str | os.PathLike,
        merges_filepath: str | os.PathLike,
        special_tokens: Sequence[str] | None = None,
    ) -> "Tokenizer":
        """Load a tokenizer from files in GPT-2's form, `vocab.json` and `merges.txt`.

        Raises:
            UsageError: a file is missing, cut short, or in another form.
        """
        from cs336_basics.bpe.vocab_files import load_gpt2_files

        vocab, merges = load_gpt2_files(vocab_filepath, merges_filepath, special_tokens or [])
        return cls(vocab, merges, special_tokens)

    @classmethod
    def from_directory(cls, directory: str | os.PathLike) -> "Tokenizer":
        """Load the tokenizer that `save` wrote, special tokens included.

        Raises:
            UsageError: the folder holds no tokenizer, or a damaged one.
        """
        from cs336_basics.bpe.vocab_files import load_directory

        return cls(*load_directory(directory))

    def save(self, directory: str | os.PathLike) -> None:
        """Write `bpe.json` (whole, with checksum) and GPT-2's `vocab.json` and `merges.txt` into a folder."""
        from cs336_basics.bpe.vocab_files import save_directory

        save_directory(directory, self.vocab, self.merges, self.special_tokens)

    @cached_property
    def vocab_size(self) -> int:
        """One more than the greatest id: the number of rows an embedding needs."""
        return max(self.vocab, default=-1) + 1

    @cached_property
    def eos_id(self) -> int | None:
        """The id of `<|endoftext|>`, None where it is no special token of this tokenizer."""
        return self._special_ids.get(END_OF_TEXT)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of the special tokens."""
        return frozenset(self._special_ids.values())

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Surrogates that form a pair count as the character they stand for, lone ones as U+FFFD.

        Raises:
            UsageError: the text has a byte that the vocabulary has no token for.
        """
        if len(text) >= (FAST_WHEN_LOADED if self._idle_encoders else FAST_FROM) and self.has_fast_path:
            return self.encode_fast(text)
        return list(self.encode_plain(text))

    def encode_fast(self, text: str) -> list[int]:
        """The ids of a text by the fast path, however short the text is."""
        with self.fast_encoder() as encoder:
            return encoder.encode(_without_surrogates(text).encode()).tolist()

    def encode_plain(self, text: str) -> Iterator[int]:
        """The ids of a text, lazily and by the plain path, however long the text is."""
        return self._encode_pieces(text, self._cache, CACHE_ENTRIES)

    def encode_iterable(self, iterable: Iterable[str]) -> Iterator[int]:
        """The ids of the joined pieces of text, lazily and in constant memory: those of `encode("".join(iterable))`.

        The pieces may be lines, characters or anything else: the text is cut anew where a cut changes nothing.
        """
        cache: dict[str, tuple[int, ...]] = {}
        for block in cut_into_blocks(_small_pieces(iterable), self.special_tokens, STREAM_BLOCK_SIZE):
            yield from self._encode_pieces(block.decode(), cache, STREAM_CACHE_ENTRIES)

    def encode_batch(self, texts: Sequence[str], num_workers: int | None = None) -> list[list[int]]:
        """The ids of each of many texts, with several workers where there is enough work.

        Args:
            texts: the texts.
            num_workers: threads for long texts, processes for many short ones; None: one per core.

        Raises:
            UsageError: the number of workers is below 1.
        """
        from cs336_basics.bpe.parallel_encoding import encode_batch

        return encode_batch(self, texts, num_workers)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; malformed UTF-8, such as half a character, becomes U+FFFD.

        Raises:
            UsageError: an id is not in the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of some ids.

        Raises:
            UsageError: an id is not in the vocabulary.
        """
        try:
            return b"".join([self.vocab[token_id] for token_id in ids])
        except KeyError as error:
            raise UsageError(
                f"token id {error.args[0]} is not in the vocabulary, whose greatest id is {self.vocab_size - 1}"
            ) from None

    # ---- the fast path ----------------------------------------------------------------------------------------------

    @cached_property
    def has_fast_path(self) -> bool:
        """Whether the vocabulary has all 256 bytes, which the fast path needs."""
        return -1 not in self._id_of_byte

    @contextmanager
    def fast_encoder(self) -> Iterator["FastEncoder"]:
        """Lend an encoder of the fast path. One serves one thread at a time, so each thread that asks gets its own."""
        try:
            encoder = self._idle_encoders.pop()
        except IndexError:
            encoder = self._first_fast_encoder.clone()
        yield encoder
        self._idle_encoders.append(encoder)  # not after an interrupt, which may leave its tables half updated

    @cached_property
    def _first_fast_encoder(self) -> "FastEncoder":
        from cs336_basics.bpe.fast.encoding import FastEncoder  # numba: half a second, the first time much more

        return FastEncoder(self.vocab, self.merges, self.special_tokens)

    def __getstate__(self) -> dict[str, object]:
        """What another process needs: neither the cache nor the fast path's tables."""
        state = self.__dict__ | {"_cache": {}, "_idle_encoders": []}
        state.pop("_first_fast_encoder", None)
        return state

    # ---- the plain path ---------------------------------------------------------------------------------------------

    def _encode_pieces(self, text: str, cache: dict[str, tuple[int, ...]], max_entries: int) -> Iterator[int]:
        for piece, is_special in split_at_special_tokens(_without_surrogates(text), self._special_pattern):
            if is_special:
                yield self._special_ids[piece]
                continue
            for pretoken in pretokens(piece):
                ids = cache.get(pretoken)
                if ids is None:
                    ids = tuple(self._encode_pretoken(pretoken.encode()))
                    if len(pretoken) <= LONGEST_CACHED:
                        if len(cache) >= max_entries:
                            cache.clear()
                        cache[pretoken] = ids
                yield from ids

    def _encode_pretoken(self, pretoken: bytes) -> list[int]:
        ids = [self._id_of_byte[byte] for byte in pretoken]
        if -1 in ids:
            missing = pretoken[ids.index(-1)]
            raise UsageError(
                f"the vocabulary has no token for the byte 0x{missing:02x}, so it cannot encode {pretoken!r}"
            )
        return self._merge_short(ids) if len(ids) < LONG_PRETOKEN else self._merge_long(ids)

    def _merge_short(self, ids: list[int]) -> list[int]:
        """Apply the merge of lowest rank, leftmost first, until none applies; quadratic, and quickest for a word."""
        merge_of = self._merge_of
        while len(ids) > 1:
            best, best_position = None, 0
            for position in range(len(ids) - 1):
                merge = merge_of.get((ids[position], ids[position + 1]))
                if merge is not None and (best is None or merge[0] < best[0]):
                    best, best_position = merge, position
            if best is None:
                break
            ids[best_position : best_position + 2] = [best[1]]
        return ids

    def _merge_long(self, ids: list[int]) -> list[int]:
        """The same in n log n: tokens in a doubly linked list, possible merges in a heap by rank and position."""
        merge_of = self._merge_of
        end = len(ids)
        following = list(range(1, end + 1))
        preceding = list(range(-1, end - 1))
        gone = -1
        heap = []
        for position in range(end - 1):
            merge = merge_of.get((ids[position], ids[position + 1]))
            if merge is not None:
                heap.append((merge[0], position, merge[1]))
        heapq.heapify(heap)
        while heap:
            rank, position, merged = heapq.heappop(heap)
            right = following[position]
            if ids[position] == gone or right == end:
                continue
            if merge_of.get((ids[position], ids[right])) != (rank, merged):
                continue  # one of the two tokens has been merged with another since
            ids[position], ids[right] = merged, gone
            after, before = following[right], preceding[position]
            following[position] = after
            if after != end:
                preceding[after] = position
                merge = merge_of.get((merged, ids[after]))
                if merge is not None:
                    heapq.heappush(heap, (merge[0], position, merge[1]))
            if before != -1:
                merge = merge_of.get((ids[before], merged))
                if merge is not None:
                    heapq.heappush(heap, (merge[0], before, merge[1]))
        return [token_id for token_id in ids if token_id != gone]


def _small_pieces(pieces: Iterable[str]) -> Iterator[bytes]:
    """The text as well-formed UTF-8 in small pieces; a surrogate pair is joined even where two pieces share it."""
    held = ""
    for piece in pieces:
        for start in range(0, len(piece), STREAM_BLOCK_SIZE):
            part = held + piece[start : start + STREAM_BLOCK_SIZE]
            held = part[-1] if "\ud800" <= part[-1] <= "\udbff" else ""  # the first of a pair
            yield _without_surrogates(part[: len(part) - len(held)]).encode()
    yield _without_surrogates(held).encode()


def _without_surrogates(text: str) -> str:
    """Join surrogate pairs into the characters they stand for and replace lone surrogates, which UTF-8 cannot store."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="replace")
    return text
