"""Preference pairs for training: read or made, tokenized, and put into batches of rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from cs336_alignment.default_task.preferences import make_preferences
from cs336_alignment.preference.config import PairConfig
from cs336_alignment.preference.data import read_preferences
from cs336_alignment.preference.pairs import EncodedPair, PreferencePair, encode_pair
from cs336_alignment.training.processes import ALONE, Processes
from cs336_basics.command_line import UsageError

Say = Callable[[str], None]


@dataclass(frozen=True)
class PairBatch:
    """Some pairs as rows: first all chosen sequences, then all rejected ones, padded on the right.

    Attributes:
        input_ids: whole sequences.
        lengths: tokens of each row before the padding.
        response_mask: marks the tokens of the responses with their EOS; never the first column, which has no
            prediction.
        indices: of the pairs, as the caller counts them.
    """

    input_ids: Int[Tensor, "rows tokens"]
    lengths: Int[Tensor, " rows"]
    response_mask: Bool[Tensor, "rows tokens"]
    indices: Int[np.ndarray, " pairs"]

    def to(self, device: torch.device) -> "PairBatch":
        """The batch with its tensors on a device."""
        tensors = (self.input_ids, self.lengths, self.response_mask)
        return PairBatch(*(tensor.to(device, non_blocking=True) for tensor in tensors), self.indices)


def padded_rows(texts: Sequence[Sequence[int]], pad_id: int) -> tuple[Int[Tensor, "rows tokens"], Int[Tensor, " rows"]]:
    """Token ids as rows padded on the right, and the length of each."""
    lengths = torch.tensor([len(ids) for ids in texts])
    input_ids = torch.full((len(texts), int(lengths.max())), pad_id, dtype=torch.long)
    for row, ids in enumerate(texts):
        input_ids[row, : len(ids)] = torch.tensor(ids)
    return input_ids, lengths


def pair_batch(pairs: Sequence[EncodedPair], indices: Int[np.ndarray, " pairs"], pad_id: int) -> PairBatch:
    """The pairs of these indices as one batch."""
    chosen = [(pairs[index].chosen, pairs[index].response_start) for index in indices]
    rejected = [(pairs[index].rejected, pairs[index].response_start) for index in indices]
    rows = chosen + rejected
    input_ids, lengths = padded_rows([ids for ids, _ in rows], pad_id)
    starts = torch.tensor([max(start, 1) for _, start in rows])
    places = torch.arange(input_ids.shape[1])
    mask = (places >= starts[:, None]) & (places < lengths[:, None])
    return PairBatch(input_ids, lengths, mask, indices)


def split_by_length(
    pairs: Sequence[EncodedPair], indices: Int[np.ndarray, " pairs"], num_parts: int
) -> list[Int[np.ndarray, " part"]]:
    """The indices in parts of about equal size, sorted by length, so that little of a part is padding."""
    order = np.argsort([pairs[index].length for index in indices], kind="stable")
    return np.array_split(indices[order], num_parts)


def batches_by_length(
    pairs: Sequence[EncodedPair],
    indices: Int[np.ndarray, " pairs"],
    batch_size: int,
    pad_id: int,
    processes: Processes = ALONE,
) -> Iterator[PairBatch]:
    """This process's share of the pairs of these indices, in batches of similar lengths, at most `batch_size` in each.

    Every process has as many batches, since sharded models compute in step; where there are too few pairs for that,
    several processes have the same one.
    """
    for part in split_by_length(pairs, indices, -(-len(indices) // (batch_size * processes.world_size))):
        enough = np.resize(part, max(len(part), processes.world_size))
        yield pair_batch(pairs, processes.share(enough), pad_id)


@dataclass(frozen=True)
class PairSets:
    """The pairs of a run.

    Attributes:
        pairs: first those for training, then those for validation; they are known by their index here.
        num_train: how many are for training.
    """

    pairs: list[EncodedPair]
    num_train: int

    @property
    def val_indices(self) -> Int[np.ndarray, " pairs"]:
        """The indices of those for validation."""
        return np.arange(self.num_train, len(self.pairs))


def load_pair_sets(config: PairConfig, tokenizer: PreTrainedTokenizerBase, say: Say | None = tqdm.write) -> PairSets:
    """Read or make the pairs that the settings ask for, and tokenize them.

    Args:
        config: the settings.
        tokenizer: of the model that is trained.
        say: is told what was left out; None for silence, without progress bars either.

    Raises:
        UsageError: a file cannot be used, or nothing is left to train on.
    """
    if config.data is None:
        train = make_preferences("train", config.num_pairs, config.seed)
        valid = make_preferences("validation", config.val_pairs, config.seed)
    else:
        train = _read(config.data, config, say)
        valid = None
    if config.val_data is not None:
        valid = _read(config.val_data, config, say)
    if valid is None:
        if len(train) <= config.val_pairs:
            raise UsageError(
                f"val_pairs is {config.val_pairs}, but {config.data} has only {len(train)} pairs; allowed is fewer, or "
                "name other validation pairs with --val_data"
            )
        order = np.random.default_rng(config.seed).permutation(len(train))
        train, valid = (
            [train[index] for index in sorted(part)] for part in (order[config.val_pairs :], order[: config.val_pairs])
        )
    encoded_train, encoded_valid = (
        _tokenize(pairs, tokenizer, config.max_length, name, say)
        for pairs, name in ((train, "training"), (valid, "validation"))
    )
    return PairSets(encoded_train + encoded_valid, len(encoded_train))


def _read(path: str, config: PairConfig, say: Say | None) -> list[PreferencePair]:
    data = read_preferences(path, config.template)
    reasons = "".join(f"; {count:,} left out: {reason}" for reason, count in data.dropped.items())
    if say is not None:
        say(f"{path}: {len(data.pairs):,} pairs{reasons}")
    return data.pairs


def _tokenize(
    pairs: Sequence[PreferencePair], tokenizer: PreTrainedTokenizerBase, max_length: int, name: str, say: Say | None
) -> list[EncodedPair]:
    bar = tqdm(pairs, desc=f"tokenizing {name} pairs", unit="pair", disable=say is None or len(pairs) < 10_000)
    kept = [encoded for pair in bar if (encoded := encode_pair(tokenizer, pair)).length <= max_length]
    if say is not None and len(kept) < len(pairs):
        say(f"{len(pairs) - len(kept):,} {name} pairs left out: longer than max_length, {max_length} tokens")
    if not kept:
        raise UsageError(f"max_length is {max_length}, but each of the {len(pairs)} {name} pairs is longer")
    return kept
