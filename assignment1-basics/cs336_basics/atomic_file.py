"""Files that are either whole or not there: write under a temporary name, flush to disk, then rename."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(
    path: str | os.PathLike, mode: str = "wb", encoding: str | None = None, flush_to_disk: bool = True
) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success it replaces `path` in one step, on any error it is removed.

    Args:
        path: the final name; its folder is made if it is missing.
        mode: "wb" or "w". Text is written as UTF-8 unless `encoding` says otherwise, without newline translation.
        encoding: the text encoding, for mode "w".
        flush_to_disk: whether the content shall survive a power failure too, for some milliseconds; without it a file
            is whole after any end of the process, which is enough for many small files that can be made again.

    Yields:
        The open temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": encoding or "utf-8", "newline": ""}
    try:
        with open(temporary, mode, **text) as file:
            yield file
            if flush_to_disk:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
