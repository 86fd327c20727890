"""What the clients of both editions share: a connection with a key, and a cache of answers."""

import os
from abc import ABC, abstractmethod
from typing import Self

from cs336_scaling.client.cache import DEFAULT_CACHE_DIR, AnswerCache
from cs336_scaling.client.transport import Connection


class ApiClient(ABC):
    """A key's view of a server. One client may be shared by threads.

    Args:
        base_url: the server's address, such as http://127.0.0.1:8000.
        api_key: sent with every request, where the edition wants it.
        cache_dir: where answers that cannot change any more are kept; None keeps nothing.
        timeout: seconds for connecting, and for each wait for the answer's next bytes.
        tries: how often a request is sent before a transient failure is given up.
        first_wait: seconds before the second try; later waits double, up to 30 s.

    All methods raise `ApiError` when the server refuses (`status` says how) and `Unreachable` when it cannot be
    reached; both are `UsageError`.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        cache_dir: str | os.PathLike | None = DEFAULT_CACHE_DIR,
        timeout: float = 30.0,
        tries: int = 6,
        first_wait: float = 0.5,
    ) -> None:
        self._connection = Connection(
            base_url, **self._credentials(api_key), timeout=timeout, tries=tries, first_wait=first_wait
        )
        self._cache = AnswerCache(cache_dir, self._connection.base_url, api_key)

    @staticmethod
    @abstractmethod
    def _credentials(api_key: str) -> dict[str, dict[str, str]]:
        """Where the key stands in a request: `headers` or `params` of `Connection`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
