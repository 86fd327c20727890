"""Texts as flat files of token ids, which training maps into memory.

The file holds nothing but the ids, little-endian: uint16 where the vocabulary has at most 65,536 tokens, else uint32.
Beside it lies `<name>.json`, which says how wide they are, how many, and from which tokenizer, so that reading them
back can be checked. A file without one is taken as uint16.
"""

import contextlib
import glob
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write
from cs336_basics.bpe.parallel_encoding import EncodedBlock, block_encoder
from cs336_basics.bpe.text_blocks import BLOCK_SIZE, read_blocks
from cs336_basics.bpe.vocab_files import fingerprint
from cs336_basics.bpe.workers import usable_cores
from cs336_basics.command_line import UsageError
from cs336_basics.tokenizer import Tokenizer

SECONDS_BETWEEN_RECORDS = 1.0
"""At most this much work is lost when the program is killed."""
_CHECKED_AT_ONCE = 1 << 24
"""Ids that `load_tokens` looks at in one piece."""


@dataclass(frozen=True)
class TokenFileInfo:
    """What the sidecar says of a token file."""

    dtype: str
    num_tokens: int
    num_bytes: int
    """Bytes of the text."""
    num_malformed: int
    """Malformed UTF-8 sequences of the text, read as U+FFFD."""
    max_id: int
    """The greatest id in the file, -1 for an empty one."""
    vocab_size: int
    tokenizer_sha256: str

    @property
    def bytes_per_token(self) -> float:
        """The compression: bytes of text per token."""
        return self.num_bytes / max(self.num_tokens, 1)

    def summary(self) -> str:
        """One line for people."""
        line = f"{self.num_tokens:,} tokens from {self.num_bytes:,} bytes, {self.bytes_per_token:.2f} bytes per token"
        return line + (f", {self.num_malformed:,} malformed sequences read as U+FFFD" if self.num_malformed else "")


def sidecar_path(path: str | os.PathLike) -> Path:
    """`<name>.json`, beside the token file."""
    path = Path(path)
    return path.with_name(path.name + ".json")


# ---- writing --------------------------------------------------------------------------------------------------------


def encode_file(
    tokenizer: Tokenizer,
    text_path: str | os.PathLike,
    out_path: str | os.PathLike,
    *,
    num_workers: int | None = None,
    progress: bool = True,
    resume: bool = True,
    block_size: int = BLOCK_SIZE,
) -> TokenFileInfo:
    """Encode a text file of any size into a token file, in constant memory.

    A run that was killed is taken up where its last record was made (at most a second earlier), and gives the same
    bytes. The file appears under its name only when it is whole.

    Args:
        tokenizer: gives the ids; those of the whole text, special tokens included.
        text_path: a UTF-8 text; malformed sequences are read as U+FFFD and counted.
        out_path: the token file; its folder is made if it is missing.
        num_workers: threads on the fast path, processes on the plain one; None: one per core.
        progress: show a progress bar in bytes of text.
        resume: take up an unfinished run for the same text and tokenizer; False: start anew.
        block_size: bytes of text per piece of work.

    Raises:
        UsageError: the text is missing, or the number of workers is below 1.
    """
    text_path, out_path = Path(text_path), Path(out_path)
    if not text_path.is_file():
        raise UsageError(f"there is no text file {text_path}")
    if num_workers is not None and num_workers < 1:
        raise UsageError(f"number of workers {num_workers} is not allowed: it must be at least 1")
    out_path.parent.mkdir(parents=True, exist_ok=True)
    dtype = token_dtype(tokenizer.vocab_size)
    job = _Job(out_path, _identity(tokenizer, text_path, dtype), dtype)
    done = job.take_up() if resume else _Done()
    size = text_path.stat().st_size
    with (
        open(text_path, "rb") as text,
        job.open_partial(done) as partial,
        tqdm(
            total=size, initial=done.num_bytes, unit="B", unit_scale=True, desc="encoding", disable=not progress
        ) as bar,
        block_encoder(tokenizer, size - done.num_bytes, num_workers or usable_cores()) as encode_blocks,
    ):
        text.seek(done.num_bytes)
        recorded = time.monotonic()
        for block in encode_blocks(read_blocks(text, tokenizer.special_tokens, block_size)):
            partial.write(block.ids.astype(dtype).tobytes())
            done = done.plus(block)
            bar.update(block.num_bytes)
            if time.monotonic() - recorded > SECONDS_BETWEEN_RECORDS:
                job.record(done, partial)
                recorded = time.monotonic()
        job.record(done, partial)
    info = TokenFileInfo(
        dtype=dtype.name,
        vocab_size=tokenizer.vocab_size,
        tokenizer_sha256=job.identity["tokenizer_sha256"],
        **asdict(done),
    )
    job.finish(info)
    return info


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest of uint16 and uint32 that holds every id of the vocabulary, little-endian."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class _Done:
    """How far a run has come: so many bytes of the text have become so many tokens of the partial file."""

    num_bytes: int = 0
    num_tokens: int = 0
    num_malformed: int = 0
    max_id: int = -1

    def plus(self, block: EncodedBlock) -> "_Done":
        return _Done(
            self.num_bytes + block.num_bytes,
            self.num_tokens + len(block.ids),
            self.num_malformed + block.num_malformed,
            max(self.max_id, int(block.ids.max(initial=0)) if len(block.ids) else -1),
        )


def _identity(tokenizer: Tokenizer, text_path: Path, dtype: np.dtype) -> dict[str, str | int]:
    """What must be the same for an unfinished run to be taken up."""
    status = text_path.stat()
    return {
        "text": str(text_path.resolve()),
        "text_bytes": status.st_size,
        "text_changed_ns": status.st_mtime_ns,
        "dtype": dtype.name,
        "tokenizer_sha256": fingerprint(tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens),
    }


class _Job:
    """The files of a run: the partial token file, and the record of how far it is right.

    The order makes a kill at any time harmless. A record is made only after the tokens it counts are on disk; what was
    written after it is cut off on resumption. At the end the sidecar is written, then the file gets its name, then the
    record goes.
    """

    def __init__(self, out_path: Path, identity: dict[str, str | int], dtype: np.dtype) -> None:
        self.out_path = out_path
        self.identity = identity
        self._dtype = dtype
        self._partial_path = out_path.with_name(f".{out_path.name}.partial")
        self._record_path = out_path.with_name(f".{out_path.name}.progress.json")

    def take_up(self) -> _Done:
        """What the last record says, if it is for the same work and the partial file has all of it; else nothing."""
        try:
            record = json.loads(self._record_path.read_text())
            done = _Done(**record["done"])
            num_bytes = self._partial_path.stat().st_size
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return _Done()
        whole = num_bytes >= done.num_tokens * self._dtype.itemsize
        return done if whole and record.get("identity") == self.identity else _Done()

    @contextlib.contextmanager
    def open_partial(self, done: _Done) -> Iterator[IO[bytes]]:
        with open(self._partial_path, "r+b" if done.num_bytes else "wb") as file:
            file.truncate(done.num_tokens * self._dtype.itemsize)
            file.seek(0, os.SEEK_END)
            yield file

    def record(self, done: _Done, partial: IO[bytes]) -> None:
        partial.flush()
        os.fsync(partial.fileno())
        with atomic_write(self._record_path, "w") as file:
            json.dump({"identity": self.identity, "done": asdict(done)}, file)

    def finish(self, info: TokenFileInfo) -> None:
        with atomic_write(sidecar_path(self.out_path), "w") as file:
            json.dump(asdict(info), file, indent=2)
        os.replace(self._partial_path, self.out_path)
        self._record_path.unlink()
        for left_by_a_kill in self.out_path.parent.glob(f".{glob.escape(self._record_path.name)}.*.tmp"):
            left_by_a_kill.unlink()


# ---- reading --------------------------------------------------------------------------------------------------------


def read_sidecar(path: str | os.PathLike) -> dict[str, Any] | None:
    """The fields of `TokenFileInfo` for a token file, from its sidecar; None where there is none.

    Raises:
        UsageError: the sidecar is damaged or something else.
    """
    sidecar = sidecar_path(path)
    try:
        info = TokenFileInfo(**json.loads(sidecar.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise UsageError(f"{sidecar} does not describe a token file: delete it, or encode the text again") from None
    if info.dtype not in ("uint16", "uint32"):
        raise UsageError(f"{sidecar} says that ids are {info.dtype!r}: it must be uint16 or uint32")
    return asdict(info)


def load_tokens(path: str | os.PathLike, vocab_size: int | None = None) -> np.memmap:
    """Map a token file into memory, read-only, after checking that it is whole and fits.

    Args:
        path: the file, as `encode_file` writes it, or flat uint16 without a sidecar.
        vocab_size: the number of tokens the reader knows; every id must be below it. None: not checked.

    Returns:
        The ids, uint16 or uint32 `(num_tokens,)`.

    Raises:
        UsageError: the file is missing, empty, cut short, not what its sidecar says, or has an id that is too great.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no token file {path}")
    sidecar = read_sidecar(path)
    dtype = np.dtype(sidecar["dtype"] if sidecar else "uint16").newbyteorder("<")
    num_bytes = path.stat().st_size
    if num_bytes % dtype.itemsize:
        raise UsageError(f"{path} is cut short: {num_bytes} bytes are no multiple of {dtype.itemsize} ({dtype.name})")
    num_tokens = num_bytes // dtype.itemsize
    if sidecar and num_tokens != sidecar["num_tokens"]:
        raise UsageError(
            f"{path} is not the file its sidecar describes: {num_tokens} tokens, not {sidecar['num_tokens']}"
        )
    if num_tokens == 0:
        raise UsageError(f"{path} holds no tokens")
    tokens = np.memmap(path, dtype=dtype, mode="r")
    if vocab_size is not None:
        max_id = sidecar["max_id"] if sidecar else _max_id(tokens)
        if max_id >= vocab_size:
            raise UsageError(f"{path} has token id {max_id}, but the vocabulary has only {vocab_size} tokens")
    return tokens


def _max_id(tokens: np.memmap) -> int:
    return max(int(tokens[start : start + _CHECKED_AT_ONCE].max()) for start in range(0, len(tokens), _CHECKED_AT_ONCE))
