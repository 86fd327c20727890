"""Shards of documents to two token files, one for training and one for validation, as assignment 1's trainer maps them.

A worker encodes a shard, document by document, into a pair of parts, then marks it as done; at the end the parts are
joined in the order of the shards' names. So memory stays constant, a kill loses at most the shards under way, and the
bytes do not depend on the number of workers. Parts and result need room side by side on the disk until the end.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cs336_basics.atomic_file import atomic_write
from cs336_basics.bpe.vocab_files import fingerprint
from cs336_basics.command_line import UsageError
from cs336_basics.token_file import TokenFileInfo, sidecar_path, token_dtype
from cs336_basics.tokenize_command import TRAIN_NAME, VALID_NAME
from cs336_basics.tokenizer import Tokenizer
from cs336_data.document_encoding import DocumentEncoder, is_for_validation, well_formed
from cs336_data.pipeline.compressed_json import is_json_lines
from cs336_data.pipeline.engine import Engine
from cs336_data.pipeline.inputs import Unit
from cs336_data.pipeline.markers import locked, read_json, write_json
from cs336_data.pipeline.pages import PageCounts, read_pages

SPLITS = {"train": TRAIN_NAME, "valid": VALID_NAME}


@dataclass
class SplitCounts:
    """What has gone into a token file, or into a part of one: `TokenFileInfo` says what the numbers are."""

    num_documents: int = 0
    num_tokens: int = 0
    num_bytes: int = 0
    num_malformed: int = 0
    max_id: int = -1

    def add(self, other: "SplitCounts") -> None:
        """Count what `other` has counted."""
        self.num_documents += other.num_documents
        self.num_tokens += other.num_tokens
        self.num_bytes += other.num_bytes
        self.num_malformed += other.num_malformed
        self.max_id = max(self.max_id, other.max_id)


@dataclass
class TokenCounts:
    """What came of a shard, or of all: counts of either split, and the lines that hold no document, by reason."""

    train: SplitCounts = field(default_factory=SplitCounts)
    valid: SplitCounts = field(default_factory=SplitCounts)
    bad: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """The counts as an object of JSON."""
        # asdict() of the whole would rebuild the Counter from its pairs, and count those.
        return {"train": asdict(self.train), "valid": asdict(self.valid), "bad": dict(self.bad)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TokenCounts":
        """What `as_json` gave."""
        return cls(SplitCounts(**value["train"]), SplitCounts(**value["valid"]), Counter(value["bad"]))


@dataclass(frozen=True)
class TokenizeSettings:
    """What decides over the tokens besides the documents themselves.

    Attributes:
        tokenizer_dir: a folder that `Tokenizer.save` wrote.
        tokenizer_sha256: the fingerprint of the tokenizer in it.
        valid_fraction: share of the documents for validation.

    Raises:
        UsageError: the share is not from 0 to 1.
    """

    tokenizer_dir: Path
    tokenizer_sha256: str
    valid_fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.valid_fraction <= 1:
            raise UsageError(f"the share of documents for validation is {self.valid_fraction}; allowed are 0 to 1")


@dataclass(frozen=True)
class TokenizeShard:
    """The work on one shard as a callable that pickles."""

    folder: Path
    settings: TokenizeSettings

    def __call__(self, unit: Unit) -> TokenCounts:
        """Write the shard's parts, then its marker."""
        encode = _load_encoder(self.settings.tokenizer_dir, self.settings.tokenizer_sha256)
        counts, page_counts = TokenCounts(), PageCounts()
        with ExitStack() as files:
            parts = {split: files.enter_context(atomic_write(_part(self.folder, unit, split))) for split in SPLITS}
            for page in read_pages(unit.path, page_counts):
                text, num_malformed = well_formed(page.text or "")
                split = "valid" if is_for_validation(text, self.settings.valid_fraction) else "train"
                ids = encode(text)
                parts[split].write(ids.tobytes())
                getattr(counts, split).add(SplitCounts(1, len(ids), len(text), num_malformed, int(ids.max())))
        counts.bad = page_counts.bad
        write_json(_marker(self.folder, unit), {"version": _version(unit, self.settings), "counts": counts.as_json()})
        return counts


@lru_cache(maxsize=1)
def _load_encoder(tokenizer_dir: Path, tokenizer_sha256: str) -> DocumentEncoder:
    """A process's encoder, which keeps what it has learned from shard to shard."""
    return DocumentEncoder(Tokenizer.from_directory(tokenizer_dir))


def tokenize_documents(
    units: Sequence[Unit], tokenizer_dir: Path, folder: Path, engine: Engine, *, valid_fraction: float = 0.05
) -> TokenCounts:
    """Encode all documents into `train.dat` and `valid.dat`, with `<|endoftext|>` after every one.

    A run that was killed goes on with the shards that are missing; a finished one with the same shards, tokenizer and
    share is left as it is.

    Args:
        units: the shards: JSON Lines with "text", plain or compressed by gzip or zstd.
        tokenizer_dir: a folder that `Tokenizer.save` wrote.
        folder: gets the two files with their sidecars; made if it is missing.
        engine: what the work runs on.
        valid_fraction: share of the documents for validation; a hash of the text says which.

    Returns:
        The counts.

    Raises:
        UsageError: a shard is something else or could not be read, the tokenizer cannot be used, the share is out of
            range, or another run is at work in the folder.
    """
    for unit in units:
        if not is_json_lines(unit.path):
            raise UsageError(f"{unit.path} is no file of documents: give .jsonl, .jsonl.gz or .jsonl.zst files")
    tokenizer = Tokenizer.from_directory(tokenizer_dir)
    DocumentEncoder(tokenizer)  # tells before any work whether the tokenizer will do
    sha256 = fingerprint(tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens)
    settings = TokenizeSettings(tokenizer_dir, sha256, valid_fraction)
    with locked(folder / "work" / "lock"):
        counts = _finished_earlier(folder, units, settings)
        if counts is None:
            counts = _encode_missing(folder, units, settings, engine)
            _join(folder, units, tokenizer, settings, counts)
    shutil.rmtree(folder / "work")
    return counts


def _version(unit: Unit, settings: TokenizeSettings) -> list[Any]:
    """What changes when the shard must be done again."""
    return [*unit.version, settings.tokenizer_sha256, settings.valid_fraction]


def _part(folder: Path, unit: Unit, split: str) -> Path:
    return folder / "work" / f"{unit.key}.{split}"


def _marker(folder: Path, unit: Unit) -> Path:
    return folder / "work" / f"{unit.key}.done.json"


def _encode_missing(folder: Path, units: Sequence[Unit], settings: TokenizeSettings, engine: Engine) -> TokenCounts:
    done: dict[str, TokenCounts] = {}
    for unit in units:
        marker = read_json(_marker(folder, unit))
        if marker and marker["version"] == _version(unit, settings):
            done[unit.key] = TokenCounts.from_json(marker["counts"])
    missing = [unit for unit in units if unit.key not in done]
    results = engine.run("tokenizing", TokenizeShard(folder, settings), missing)
    if results.failed:
        key, reason = next(iter(results.failed.items()))
        path = next(unit.path for unit in units if unit.key == key)
        others = f" (and {len(results.failed) - 1} more)" if len(results.failed) > 1 else ""
        raise UsageError(f"{path} could not be tokenized{others}: {reason}; the same command goes on from here")
    done |= results.done
    total = TokenCounts()
    for counts in done.values():
        total.train.add(counts.train)
        total.valid.add(counts.valid)
        total.bad.update(counts.bad)
    return total


def _join(
    folder: Path, units: Sequence[Unit], tokenizer: Tokenizer, settings: TokenizeSettings, total: TokenCounts
) -> None:
    _record_path(folder).unlink(missing_ok=True)
    for split, name in SPLITS.items():
        path, counts = folder / name, asdict(getattr(total, split))
        if not counts.pop("num_documents"):
            path.unlink(missing_ok=True)
            sidecar_path(path).unlink(missing_ok=True)
            continue
        info = TokenFileInfo(
            dtype=token_dtype(tokenizer.vocab_size).name,
            vocab_size=tokenizer.vocab_size,
            tokenizer_sha256=settings.tokenizer_sha256,
            **counts,
        )
        with atomic_write(path) as file:
            for unit in units:
                with open(_part(folder, unit, split), "rb") as part:
                    shutil.copyfileobj(part, file, 1 << 20)
        write_json(sidecar_path(path), asdict(info))
    write_json(_record_path(folder), {"run": _run_identity(units, settings), "counts": total.as_json()})


def _record_path(folder: Path) -> Path:
    return folder / "tokens.json"


def _run_identity(units: Sequence[Unit], settings: TokenizeSettings) -> dict[str, list[Any]]:
    return {unit.key: _version(unit, settings) for unit in units}


def _finished_earlier(folder: Path, units: Sequence[Unit], settings: TokenizeSettings) -> TokenCounts | None:
    """The counts of a run with the same inputs and settings whose result lies in the folder, whole."""
    record = read_json(_record_path(folder))
    if not record or record["run"] != _run_identity(units, settings):
        return None
    counts = TokenCounts.from_json(record["counts"])
    for split, name in SPLITS.items():
        if getattr(counts, split).num_documents and not (folder / name).is_file():
            return None
    return counts
