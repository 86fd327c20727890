"""Writes the small web as Common Crawl publishes the large one: WARC and WET files, and the truth beside them."""

import hashlib
import io
import json
import os
import uuid
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_data.small_web.choices import Choices
from cs336_data.small_web.generator import make_page
from cs336_data.small_web.page import Page

LABELS_FILE, SETTINGS_FILE = "labels.jsonl", "small_web.json"
_EDITION = 1
"""Raised when the same settings give other pages than before."""
_FIRST_DATE = datetime(2024, 5, 18, tzinfo=UTC)
_TRANSFERS = {"plain": 0.82, "gzip": 0.06, "deflate": 0.03, "chunked": 0.06, "revisit": 0.03}
_OTHER_RESPONSES = {"redirect": 0.04, "image": 0.03, "error": 0.03, "": 0.90}


def write_small_web(
    folder: str | os.PathLike,
    *,
    num_pages: int = 400,
    seed: int = 0,
    pages_per_file: int = 100,
    damage: bool = False,
    progress: bool = False,
) -> list[Path]:
    """Write the small web of a seed: the same pages for the same seed, on every machine.

    Where the folder already holds what is asked for, nothing is written.

    Args:
        folder: where to write `small-web-00000.warc.gz` …, the WET file of each (`….warc.wet.gz`) and `labels.jsonl`:
            for every page a line with `url`, `file`, `kind`, `language`, `title`, `encoding`, `declared`,
            `broken_bytes`, `duplicate`, `duplicate_of`, `pii` and `should_keep` (see `page.Page`), and `text`, its
            visible text.
        num_pages: how many pages, at least 1.
        seed: 0 or more.
        pages_per_file: how many pages go into one archive.
        damage: corrupt one record of every WARC file and cut the last record off.
        progress: show a progress bar.

    Returns:
        The WARC files, in order. Each file appears only when it is complete, `small_web.json` (what was asked for)
        last of all.

    Raises:
        UsageError: a number is out of range.
    """
    for name, value, least in (("num_pages", num_pages, 1), ("seed", seed, 0), ("pages_per_file", pages_per_file, 1)):
        if value < least:
            raise UsageError(f"{name} is {value}; at least {least} is needed")
    folder = Path(folder)
    settings = {
        "edition": _EDITION,
        "num_pages": num_pages,
        "seed": seed,
        "pages_per_file": pages_per_file,
        "damage": damage,
    }
    if (found := _finished(folder, settings)) is not None:
        return found
    paths: list[Path] = []
    (folder / SETTINGS_FILE).unlink(missing_ok=True)
    with (
        atomic_write(folder / LABELS_FILE, "w") as labels,
        tqdm(total=num_pages, desc="small web", unit="page", disable=not progress) as bar,
    ):
        for file_number, start in enumerate(range(0, num_pages, pages_per_file)):
            path = folder / f"small-web-{file_number:05}.warc.gz"
            pages = [make_page(seed, number) for number in range(start, min(start + pages_per_file, num_pages))]
            responses = _write_warc(path, pages, seed, start, damage)
            _write_wet(path.with_name(path.name.replace(".warc.gz", ".warc.wet.gz")), pages, responses, start)
            labels.writelines(json.dumps(_label(page, path.name), ensure_ascii=False) + "\n" for page in pages)
            paths.append(path)
            bar.update(len(pages))
    with atomic_write(folder / SETTINGS_FILE, "w") as file:
        json.dump(settings | {"files": [path.name for path in paths]}, file, indent=1)
    return paths


def _finished(folder: Path, settings: dict[str, int]) -> list[Path] | None:
    """The WARC files in the folder, if an earlier call has written it with these settings to its end."""
    try:
        record = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    paths = [folder / name for name in record.pop("files", [])]
    return paths if record == settings and all(path.is_file() for path in paths) else None


def read_labels(folder: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The lines of `labels.jsonl` in a folder that `write_small_web` wrote."""
    with open(Path(folder) / LABELS_FILE, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _label(page: Page, file_name: str) -> dict[str, Any]:
    return {
        "url": page.url,
        "file": file_name,
        "kind": page.kind,
        "language": page.language,
        "title": page.title,
        "encoding": page.encoding,
        "declared": page.http_charset or page.meta_charset,
        "broken_bytes": page.broken_bytes,
        "duplicate": page.duplicate,
        "duplicate_of": page.duplicate_of,
        "pii": {sort: page.pii.get(sort, 0) for sort in ("emails", "phones", "ips")},
        "should_keep": page.should_keep,
        "text": "\n".join(page.lines()) if page.kind != "empty" else "",
    }


class _Archive:
    """Writes records whose identifiers and dates follow from their order."""

    def __init__(self, name: str, start: int) -> None:
        self.buffer, self._name, self._number = io.BytesIO(), name, start
        self._writer = WARCWriter(self.buffer, gzip=True)
        self.offsets: list[int] = []
        info = f"software: cs336_data.small_web\r\nformat: WARC File Format 1.0\r\nisPartOf: {name}\r\n".encode()
        self.add("", "warcinfo", info, "application/warc-fields", {"WARC-Filename": name})

    def add(
        self,
        url: str,
        record_type: str,
        payload: bytes,
        content_type: str | None = None,
        fields: dict[str, str] | None = None,
        http: StatusAndHeaders | None = None,
    ) -> str:
        """Append a record; its WARC-Record-ID."""
        digest = hashlib.sha256(f"{self._name}/{len(self.offsets)}".encode()).hexdigest()
        identifier = f"<urn:uuid:{uuid.UUID(digest[:32])}>"
        date = _FIRST_DATE + timedelta(seconds=self._number)
        self._number += 1
        self.offsets.append(self.buffer.tell())
        record = self._writer.create_warc_record(
            url or None,
            record_type,
            payload=io.BytesIO(payload),
            length=len(payload),
            warc_content_type=content_type or "",
            warc_headers_dict={
                "WARC-Record-ID": identifier,
                "WARC-Date": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
                **(fields or {}),
            },
            http_headers=http,
        )
        self._writer.write_record(record)
        return identifier


def _write_warc(path: Path, pages: list[Page], seed: int, start: int, damage: bool) -> list[str]:
    """Write the WARC file; the identifiers of the pages' responses."""
    archive, identifiers = _Archive(path.name, start), []
    for number, page in enumerate(pages, start=start):
        choices = Choices(f"{seed}/server/{number}")
        _add_other_response(archive, page, choices)
        host, target = page.url.partition("://")[2].partition("/")[::2]
        request = StatusAndHeaders(f"GET /{target} HTTP/1.1", [("Host", host)], is_http_request=True)
        archive.add(page.url, "request", b"", http=request)
        identifiers.append(_add_page(archive, page, choices))
        archive.add(page.url, "metadata", b"fetchTimeMs: 120\r\n", "application/warc-fields")
    data = bytearray(archive.buffer.getvalue())
    if damage:
        middle = len(archive.offsets) // 2
        data[(archive.offsets[middle] + archive.offsets[middle + 1]) // 2] ^= 0xFF
        del data[(archive.offsets[-1] + len(data)) // 2 :]
    with atomic_write(path) as file:
        file.write(data)
    return identifiers


def _add_other_response(archive: _Archive, page: Page, choices: Choices) -> None:
    """Now and then, what a crawler meets besides pages."""
    base = f"https://{page.site.host}"
    match choices.pick_weighted(_OTHER_RESPONSES):
        case "redirect":
            http = StatusAndHeaders("301 Moved Permanently", [("Location", page.url)], protocol="HTTP/1.1")
            archive.add(page.url.replace("https://", "http://"), "response", b"", http=http)
        case "image":
            http = StatusAndHeaders("200 OK", [("Content-Type", "image/png")], protocol="HTTP/1.1")
            png = b"\x89PNG\r\n\x1a\n" + hashlib.sha512(page.url.encode()).digest() * 4
            archive.add(f"{base}/logo.png", "response", png, http=http)
        case "error":
            http = StatusAndHeaders("404 Not Found", [("Content-Type", "text/html")], protocol="HTTP/1.1")
            archive.add(f"{base}/missing", "response", b"<html><body><h1>Not Found</h1></body></html>", http=http)


def _add_page(archive: _Archive, page: Page, choices: Choices) -> str:
    body = page.html()
    charset = f"; charset={page.http_charset}" if page.http_charset else ""
    headers = [("Content-Type", f"text/html{charset}"), ("Server", "small-web")]
    transfer = choices.pick_weighted(_TRANSFERS)
    if transfer == "gzip":
        compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        body = compressor.compress(body) + compressor.flush()
        headers.append(("Content-Encoding", "gzip"))
    elif transfer == "deflate":
        body = zlib.compress(body)
        headers.append(("Content-Encoding", "deflate"))
    elif transfer == "chunked":
        pieces = [body[place : place + 1000] for place in range(0, len(body), 1000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        headers.append(("Transfer-Encoding", "chunked"))
    else:
        headers.append(("Content-Length", str(len(body))))
    http = StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1")
    identifier = archive.add(page.url, "response", body, http=http)
    if transfer == "revisit":  # the crawler came back and found the same page
        fields = {"WARC-Profile": "http://netpreserve.org/warc/1.0/revisit/identical-payload-digest"}
        archive.add(page.url, "revisit", b"", fields=fields, http=http)
    return identifier


def _write_wet(path: Path, pages: list[Page], responses: list[str], start: int) -> None:
    archive = _Archive(path.name, start)
    for page, response in zip(pages, responses, strict=True):
        if page.kind != "empty":
            text = "\n".join(page.lines()).encode() + b"\n"
            archive.add(page.url, "conversion", text, "text/plain", {"WARC-Refers-To": response})
    with atomic_write(path) as file:
        file.write(archive.buffer.getvalue())
