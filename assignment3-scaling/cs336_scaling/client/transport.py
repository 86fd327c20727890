"""HTTP with patience: which failures are worth another try, and how a server's refusal reads as one sentence.

A failure is *transient* if the same request may succeed in a moment: no connection, a broken or silent one, or the
answers 429, 502, 503 and 504. Those are tried again after a wait that doubles and carries a random part, so that many
clients do not come back all at once; a server's `Retry-After` is obeyed. All other answers are final.
"""

from collections.abc import Callable
from typing import Any

import httpx
import tenacity

from cs336_basics.command_line import UsageError

TRANSIENT_STATUS = frozenset({429, 502, 503, 504})
LONGEST_WAIT_SECONDS = 30.0


class ApiError(UsageError):
    """The server refused a request. `status` is the HTTP status, `body` the parsed answer or its text."""

    def __init__(self, message: str, status: int, body: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class Unreachable(UsageError):
    """The server could not be reached, or kept failing, in all the tries there were."""


class _Transient(Exception):
    """Try again. `reached` says whether the request may have taken effect all the same."""

    def __init__(self, reason: str, reached: bool, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reached = reached
        self.retry_after = retry_after


class Connection:
    """A server's address with the credentials that every request carries.

    Args:
        base_url: such as http://127.0.0.1:8000.
        headers: sent with every request.
        params: query parameters sent with every request.
        timeout: seconds for connecting, and for each wait for the answer's next bytes.
        tries: how often a request is sent before a transient failure is given up.
        first_wait: seconds before the second try; later waits double, up to 30 s.

    Raises:
        UsageError: the address is not that of an HTTP server.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        timeout: float = 30.0,
        tries: int = 6,
        first_wait: float = 0.5,
    ) -> None:
        try:
            address = httpx.URL(base_url)
        except httpx.InvalidURL:
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise UsageError(f"server address is {base_url!r}; allowed is something like http://127.0.0.1:8000")
        self.base_url = base_url.rstrip("/")
        self._params = params or {}
        self._tries = tries
        longest = LONGEST_WAIT_SECONDS
        self._waits = tenacity.wait_exponential_jitter(multiplier=first_wait, max=longest, jitter=first_wait)
        self._http = httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout)

    def close(self) -> None:
        """Close the open connections."""
        self._http.close()

    def get(self, path: str, params: dict[str, Any] | None = None) -> Any:
        """The parsed answer to a GET request.

        Raises:
            ApiError: the server refused it.
            Unreachable: all tries failed.
        """
        return self._request("GET", path, params=params)

    def post(self, path: str, body: dict[str, Any], reconcile: Callable[[], Any] | None = None) -> Any:
        """The parsed answer to a POST request.

        Args:
            path: where to.
            body: sent as JSON.
            reconcile: asked, before another try, after a failure that leaves open whether the request took effect; what
                it returns, if not None, is the answer and nothing is sent again. Without it the request must be one
                that may take effect twice without harm.

        Raises:
            ApiError: the server refused it.
            Unreachable: all tries failed.
        """
        return self._request("POST", path, json=body, reconcile=reconcile)

    def _request(self, method: str, path: str, reconcile: Callable[[], Any] | None = None, **content: Any) -> Any:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Transient),
            stop=tenacity.stop_after_attempt(self._tries),
            wait=self._wait,
            reraise=True,
        )
        in_doubt = False
        try:
            for attempt in retrying:
                with attempt:
                    if in_doubt and reconcile is not None:
                        found = reconcile()
                        if found is not None:
                            return found
                    try:
                        return self._send(method, path, **content)
                    except _Transient as failure:
                        in_doubt = in_doubt or failure.reached
                        raise
        except _Transient as failure:
            raise Unreachable(f"{self.base_url}{path} failed {self._tries} times: {failure}") from None
        raise AssertionError("tenacity ends by returning or raising")

    def _wait(self, state: tenacity.RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked_for = failure.retry_after if isinstance(failure, _Transient) else None
        return max(self._waits(state), min(asked_for or 0.0, LONGEST_WAIT_SECONDS))

    def _send(self, method: str, path: str, params: dict[str, Any] | None = None, json: Any = None) -> Any:
        try:
            answer = self._http.request(method, path, params={**self._params, **(params or {})}, json=json)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Transient(f"no connection ({error})", reached=False) from error
        except httpx.RequestError as error:
            raise _Transient(f"connection lost ({type(error).__name__})", reached=True) from error
        if answer.status_code in TRANSIENT_STATUS:
            # 429 turns a request away at the door; the others may come from a gateway and hide that it arrived.
            reached = answer.status_code != 429
            raise _Transient(f"status {answer.status_code}", reached, _retry_after(answer))
        body = _parse(answer)
        if answer.status_code >= 400:
            raise ApiError(_sentence(answer.status_code, body), answer.status_code, body)
        return body


def _retry_after(answer: httpx.Response) -> float | None:
    """The header's seconds; its other form, a date, is left to our own waits."""
    try:
        return float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        return None


def _parse(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        if answer.status_code < 400:
            raise UsageError(f"{answer.url.copy_with(query=None)} does not speak the training API: no JSON") from None
        return answer.text[:200]


def _sentence(status: int, body: Any) -> str:
    """What a refusal says: our server's and FastAPI's `detail` or `message`, field by field where it is a list."""
    detail = body.get("detail", body.get("message", body)) if isinstance(body, dict) else body
    if isinstance(detail, list):
        parts = [
            f"{'.'.join(str(step) for step in item.get('loc', ()) if step != 'body')}: {item.get('msg', item)}"
            for item in detail
            if isinstance(item, dict)
        ]
        detail = "; ".join(parts) or detail
    return f"the server refused ({status}): {detail}"
