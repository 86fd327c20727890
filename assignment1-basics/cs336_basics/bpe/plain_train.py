"""Training byte-level BPE, the textbook way: count the pre-tokens, then merge the most frequent pair, again and again.

The merging keeps count of every pair and of the words it occurs in, so that one merge touches only those words. This is
the reference the fast path is tested against, and the path for small work.

Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016), algorithm 1,
on bytes instead of characters as in GPT-2.
"""

import heapq
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise

from cs336_basics.bpe.pretokenize import pretokens, special_token_pattern, split_at_special_tokens
from cs336_basics.bpe.text_blocks import BLOCK_SIZE, decode_utf8, read_blocks
from cs336_basics.bpe.workers import ordered_map, process_pool, usable_cores

Pair = tuple[int, int]
"""The ids of two neighboring tokens."""

SMALL_FILE = 8 << 20
"""Bytes up to which starting processes costs more than it saves."""


def train_bpe_plain(
    input_path: str | os.PathLike,
    vocab_size: int,
    special_tokens: list[str],
    *,
    num_workers: int | None = None,
    progress: bool = False,
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Train on the UTF-8 file at `input_path`; see `cs336_basics.bpe.train.train_bpe`, which checks the arguments."""
    counts, num_malformed = count_pretokens(input_path, special_tokens, num_workers, progress)
    if num_malformed:
        warn_malformed(input_path, num_malformed)
    vocab = {byte: bytes([byte]) for byte in range(256)}
    merges = merge_pairs(counts, vocab, vocab_size - 256 - len(special_tokens), progress)
    for token in special_tokens:
        vocab[len(vocab)] = token.encode()
    return vocab, merges


def warn_malformed(path: str | os.PathLike, count: int) -> None:
    """Say that `count` malformed sequences of the file were read as U+FFFD."""
    noun = "sequence" if count == 1 else "sequences"
    warnings.warn(f"{path} is not all UTF-8: {count} malformed {noun} read as U+FFFD", stacklevel=3)


# ---- counting -------------------------------------------------------------------------------------------------------


def count_pretokens(
    path: str | os.PathLike, special_tokens: list[str], num_workers: int | None = None, progress: bool = False
) -> tuple[Counter[bytes], int]:
    """Count every distinct pre-token of the file, in memory that grows with their number, not with the file.

    Args:
        path: the file. Its bytes are taken as they are: no newline is translated, no byte-order mark dropped.
        special_tokens: hard borders; they are not counted.
        num_workers: processes (None: one per core); files up to `SMALL_FILE` are counted in this one.
        progress: show a progress bar in MB.

    Returns:
        The counts, and the number of malformed UTF-8 sequences that were read as U+FFFD.
    """
    size = os.path.getsize(path)
    num_workers = num_workers or usable_cores()
    if size <= SMALL_FILE:
        num_workers = 1
    totals: Counter[str] = Counter()
    num_malformed = 0
    with open(path, "rb") as file, _progress_bar(size, "B", "counting", progress) as bar:
        blocks = read_blocks(file, special_tokens, BLOCK_SIZE)
        for counts, malformed, num_bytes in _map_in_processes(blocks, special_tokens, num_workers):
            totals.update(counts)
            num_malformed += malformed
            bar.update(num_bytes)
    return Counter({text.encode(): count for text, count in totals.items()}), num_malformed


def _count_block(block: bytes, special_tokens: list[str]) -> tuple[Counter[str], int, int]:
    text, num_malformed = decode_utf8(block)
    counts: Counter[str] = Counter()
    for piece, is_special in split_at_special_tokens(text, special_token_pattern(special_tokens)):
        if not is_special:
            counts.update(pretokens(piece))
    return counts, num_malformed, len(block)


def _map_in_processes(
    blocks: Iterable[bytes], special_tokens: list[str], num_workers: int
) -> Iterator[tuple[Counter[str], int, int]]:
    count = partial(_count_block, special_tokens=special_tokens)
    if num_workers == 1:
        yield from map(count, blocks)
        return
    with process_pool(num_workers) as pool:
        yield from ordered_map(pool, count, blocks, under_way=2 * num_workers)


# ---- merging --------------------------------------------------------------------------------------------------------


class Candidate:
    """A pair and the count it had when it entered the heap. The heap's first is the pair to merge next.

    The greatest count comes first; among equal counts, the greatest pair of byte strings.
    """

    __slots__ = ("count", "pair", "pair_bytes")

    def __init__(self, count: int, pair: Pair, pair_bytes: tuple[bytes, bytes]) -> None:
        self.count = count
        self.pair = pair
        self.pair_bytes = pair_bytes

    def __lt__(self, other: "Candidate") -> bool:
        if self.count != other.count:
            return self.count > other.count
        return self.pair_bytes > other.pair_bytes


def merge_pairs(
    pretoken_counts: dict[bytes, int], vocab: dict[int, bytes], num_merges: int, progress: bool = False
) -> list[tuple[bytes, bytes]]:
    """Merge the most frequent pair `num_merges` times, or until no pair is left; add each new token to `vocab`.

    Args:
        pretoken_counts: every distinct pre-token and how often it occurs.
        vocab: id -> bytes with ids 0 to 255 the single bytes; new tokens get the next ids.
        num_merges: how many merges to make at most.
        progress: show a progress bar in merges.

    Returns:
        The merges in order, as pairs of byte strings.
    """
    words = [list(pretoken) for pretoken in pretoken_counts]  # a word is the list of its token ids, at first its bytes
    frequencies = list(pretoken_counts.values())
    pair_counts: defaultdict[Pair, int] = defaultdict(int)
    words_with: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pair_counts[pair] += frequencies[index]
            words_with[pair].add(index)

    def candidate(pair: Pair) -> Candidate:
        return Candidate(pair_counts[pair], pair, (vocab[pair[0]], vocab[pair[1]]))

    heap = [candidate(pair) for pair in pair_counts]
    heapq.heapify(heap)
    merges: list[tuple[bytes, bytes]] = []
    with _progress_bar(num_merges, " merges", "merging", progress) as bar:
        while len(merges) < num_merges and heap:
            best = heapq.heappop(heap)
            if pair_counts.get(best.pair) != best.count:
                continue  # its count has changed since; the pair is in the heap again with the new one
            new_id = len(vocab)
            vocab[new_id] = b"".join(best.pair_bytes)
            merges.append(best.pair_bytes)
            changed: set[Pair] = set()
            for index in words_with.pop(best.pair):
                old_word, frequency = words[index], frequencies[index]
                new_word = merge_word(old_word, best.pair, new_id)
                for pair in pairwise(old_word):
                    pair_counts[pair] -= frequency
                    changed.add(pair)
                for pair in pairwise(new_word):
                    pair_counts[pair] += frequency
                    words_with[pair].add(index)
                    changed.add(pair)
                words[index] = new_word
            for pair in changed:
                if pair_counts[pair] > 0:
                    heapq.heappush(heap, candidate(pair))
                else:
                    del pair_counts[pair]
                    words_with.pop(pair, None)
            bar.update(1)
    return merges


def merge_word(word: list[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every occurrence of `pair` in `word`, from left to right, by `new_id`."""
    merged: list[int] = []
    position = 0
    while position < len(word):
        if position + 1 < len(word) and word[position] == pair[0] and word[position + 1] == pair[1]:
            merged.append(new_id)
            position += 2
        else:
            merged.append(word[position])
            position += 1
    return merged


def _progress_bar(total: int, unit: str, description: str, shown: bool):  # noqa: ANN202 - tqdm is imported when needed
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, unit_scale=True, desc=description, disable=not shown)
