"""Answers that will not change, kept in a folder, so that asking again costs neither budget nor a request.

One JSON file per answer. Files of one server and one key lie together in a folder whose name is a hash of both, so keys
are not written down and two servers never mix.
"""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from cs336_basics.atomic_file import atomic_write

DEFAULT_CACHE_DIR: Path = user_cache_path("cs336_scaling")
"""The user's cache folder for this program, by the system's convention."""


def fingerprint(value: Any) -> str:
    """A name for a JSON value: equal values have equal names, whatever the order of their keys."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


class AnswerCache:
    """Answers of one server to one key.

    Args:
        folder: holds the caches of all servers; None keeps nothing.
        base_url: the server's address.
        api_key: the key; only its hash is used.
    """

    def __init__(self, folder: str | os.PathLike | None, base_url: str, api_key: str) -> None:
        self._folder = None if folder is None else Path(folder) / fingerprint([base_url, api_key])

    def get(self, question: Any) -> Any | None:
        """The answer kept for this question (any JSON value), or None; a damaged file counts as none."""
        if self._folder is None:
            return None
        try:
            return json.loads(self._path(question).read_text(encoding="utf-8"))["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, question: Any, answer: Any) -> None:
        """Keep an answer."""
        if self._folder is None:
            return
        with atomic_write(self._path(question), "w") as file:
            json.dump({"question": question, "answer": answer}, file)

    def _path(self, question: Any) -> Path:
        assert self._folder is not None
        return self._folder / f"{fingerprint(question)}.json"
