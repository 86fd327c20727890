"""Fetching a large file over HTTP so that nothing is lost: it resumes, retries, and is checked before it gets its name.

Until it is complete and its checksum is right, the file is called `NAME.part`; beside it `NAME.part.json` notes where
it comes from and which version (ETag) it is, so that a later call goes on where an earlier one stopped.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import requests
from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60
_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Downloaded:
    """What is known of a complete file. `checked_against` says whose SHA-256 it was compared with."""

    url: str
    num_bytes: int
    sha256: str
    checked_against: str  # "the published checksum", "the server's checksum" or "nothing"


class _Interrupted(Exception):
    """The transfer stopped in a way that another try may mend."""


def part_path(path: str | os.PathLike) -> Path:
    """Where the unfinished download of `path` is kept."""
    path = Path(path)
    return path.with_name(path.name + ".part")


def file_sha256(path: str | os.PathLike, progress: bool = False) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    path = Path(path)
    with open(path, "rb") as file, _bar(f"checking {path.name}", path.stat().st_size, 0, progress) as bar:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def check_disk_space(folder: str | os.PathLike, needed_bytes: int, what: str) -> None:
    """Raise `UsageError` if the disk of `folder` has not `needed_bytes` left for `what`."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise UsageError(
            f"{what} needs {needed_bytes / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free in {folder}; "
            "make room or choose another folder"
        )


def download(
    url: str,
    path: str | os.PathLike,
    *,
    sha256: str | None = None,
    progress: bool = True,
    tries: int = 6,
    first_pause_s: float = 1.0,
) -> Downloaded:
    """Fetch `url` into `path`, going on with what an earlier call left.

    Args:
        url: an http or https address; redirections are followed.
        path: the file to write. It appears only when it is complete and right.
        sha256: its checksum. Without one, the checksum that Hugging Face sends for large files (X-Linked-ETag) counts.
        progress: show a progress bar.
        tries: how many times in a row the transfer may stop without any byte gained before this gives up.
        first_pause_s: seconds before the second try; each further pause is twice as long, at most 60.

    Raises:
        UsageError: the address is refused or cannot be reached, the disk is too small, another process is at the same
            download, or the checksum is wrong (the bytes are then thrown away).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    with open(part, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{part} is being written by another process; wait for it or stop it") from None
        if not _is_at(file, part):
            # Between opening and locking, the process that held the lock renamed or removed what was opened here.
            raise UsageError(f"{part} was just finished by another process; the same command goes on from there")
        try:
            server_sha256 = _fetch_all(url, file, part, progress, tries, first_pause_s)
        except UsageError:
            if not os.fstat(file.fileno()).st_size:
                part.unlink()
            raise
        os.fsync(file.fileno())
        actual, expected = file_sha256(part, progress), sha256 or server_sha256
        if expected and actual != expected:
            part.unlink()
            _record_path(part).unlink(missing_ok=True)
            raise UsageError(f"{url} has SHA-256 {actual}, but {expected} is right; the download was thrown away")
        os.replace(part, path)
        _record_path(part).unlink(missing_ok=True)
    source = "the published checksum" if sha256 else "the server's checksum" if server_sha256 else "nothing"
    result = Downloaded(url, path.stat().st_size, actual, source)
    with atomic_write(path.with_name(path.name + ".download.json"), "w") as record:
        json.dump(asdict(result), record, indent=1)
    return result


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fetch_all(url: str, file: IO[bytes], part: Path, progress: bool, tries: int, first_pause_s: float) -> str | None:
    """Repeat `_fetch` until the file is complete; return the checksum the server names, if it does."""
    failures = 0
    with requests.Session() as session:
        while True:
            size_before = os.fstat(file.fileno()).st_size
            try:
                return _fetch(session, url, file, part, progress)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                reason = f"{type(error).__name__}"
            except _Interrupted as error:
                reason = str(error)
            except requests.RequestException as error:
                raise UsageError(f"{url} cannot be fetched: {error}") from None
            file.flush()
            failures = 0 if os.fstat(file.fileno()).st_size > size_before else failures + 1
            if failures >= tries:
                raise UsageError(
                    f"{url} cannot be fetched ({reason}, {tries} tries); what has arrived is kept in {part}, and the "
                    "same command goes on from there"
                )
            pause = min(first_pause_s * 2 ** max(failures - 1, 0), 60)
            tqdm.write(f"{part.name}: {reason}; trying again in {pause:g} s")
            time.sleep(pause)


def _fetch(session: requests.Session, url: str, file: IO[bytes], part: Path, progress: bool) -> str | None:
    """Ask once for the bytes that are missing and append them to `file`."""
    have, etag = os.fstat(file.fileno()).st_size, _known_etag(part, url)
    headers = {"Accept-Encoding": "identity"}
    if have and etag:
        # If-Range: the rest only if it is still the same version, else the whole file (RFC 9110, 13.1.5).
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    with session.get(url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)) as answer:
        server_sha256 = _linked_sha256(answer)
        if answer.status_code == 416 and answer.headers.get("Content-Range", "").endswith(f"/{have}"):
            return server_sha256  # nothing is missing
        if answer.status_code == 416:
            file.truncate(0)
            raise _Interrupted("the file on the server has changed")
        if answer.status_code in _TRANSIENT_STATUS:
            raise _Interrupted(f"status {answer.status_code}")
        if answer.status_code not in (200, 206):
            raise UsageError(f"{url} answers with status {answer.status_code} ({answer.reason})")
        if answer.status_code == 200:
            file.truncate(0)
            have = 0
        elif not (answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")):
            file.truncate(0)
            raise _Interrupted(f"the server sent the range {answer.headers.get('Content-Range')!r}")
        _note_etag(part, url, answer.headers.get("ETag"))
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        check_disk_space(part.parent, (total or have) - have, part.stem)
        with _bar(part.stem, total, have, progress) as bar:
            for chunk in answer.iter_content(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
        file.flush()
        if total is not None and os.fstat(file.fileno()).st_size != total:
            raise _Interrupted("the connection ended early")
        return server_sha256


def _linked_sha256(answer: requests.Response) -> str | None:
    """The SHA-256 in Hugging Face's X-Linked-ETag, which comes with the redirection to the storage."""
    for response in (*answer.history, answer):
        if match := re.fullmatch(r'(?:W/)?"?([0-9a-f]{64})"?', response.headers.get("X-Linked-ETag", "")):
            return match[1]
    return None


def _record_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _known_etag(part: Path, url: str) -> str | None:
    try:
        record = json.loads(_record_path(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record.get("etag") if record.get("url") == url else None


def _note_etag(part: Path, url: str, etag: str | None) -> None:
    """Remember the version before its first byte is written. A weak ETag does not promise equal bytes: not kept."""
    if etag and not etag.startswith("W/"):
        with atomic_write(_record_path(part), "w") as file:
            json.dump({"url": url, "etag": etag}, file)
    else:
        _record_path(part).unlink(missing_ok=True)


def _bar(name: str, total: int | None, initial: int, progress: bool) -> tqdm:
    return tqdm(
        desc=name, total=total, initial=initial, unit="B", unit_scale=True, unit_divisor=1000, disable=not progress
    )
