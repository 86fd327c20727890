"""The HTTP answer inside a response record: its header, and its body freed of chunks and compression.

Archives disagree with their headers: bodies are often stored decoded while the header still says "chunked" or "gzip",
or they were cut off during the crawl. What is not encoded as the header says is taken as it is, and of a damaged body
its readable start.
"""

import io
import re
import zlib
from typing import NamedTuple

from fastwarc.stream_io import BrotliReader
from fastwarc.warc import HeaderMap
from warcio.bufferedreaders import ChunkedDataReader
from warcio.statusandheaders import StatusAndHeadersParser, StatusAndHeadersParserException

_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})\b")
_READ_BYTES = 1 << 16


class HttpMessage(NamedTuple):
    """A status or request line's code (None for a request), header fields (names in lower case) and the raw body."""

    status: int | None
    headers: dict[str, str]
    body: bytes


def parse_http(block: bytes, is_request: bool = False) -> HttpMessage | None:
    """Split a record's block into HTTP header and body; None if it does not begin as HTTP does (RFC 9112, 2 and 4)."""
    status_line = None if is_request else _STATUS_LINE.match(block)
    if status_line is None and not is_request:
        return None
    fields = HeaderMap("latin1")
    try:
        header_bytes = fields.parse(io.BytesIO(block))
    except OSError:  # a header of more than 32 KiB
        header_bytes = 0
    if block.endswith(b"\r\n\r\n", 0, header_bytes) and b"\n\n" not in block[:header_bytes]:
        headers, body = {name.lower(): value for name, value in fields.to_tuples()}, block[header_bytes:]
    else:  # lines that end in a line feed alone, no empty line, or a very long header
        stream = io.BytesIO(block)
        try:
            pairs = StatusAndHeadersParser([""], verify=False).parse(stream).headers
        except (StatusAndHeadersParserException, EOFError):
            return None
        headers, body = {name.strip().lower(): value.strip() for name, value in pairs}, stream.read()
    return HttpMessage(int(status_line[1]) if status_line else None, headers, body)


def decode_body(message: HttpMessage) -> bytes:
    """The body without transfer encoding (chunked) and content encoding (gzip, deflate, br)."""
    body = message.body
    if "chunked" in message.headers.get("transfer-encoding", "").lower():
        body = ChunkedDataReader(io.BytesIO(body)).read()
    # The codings were applied in the order in which they are listed (RFC 9110, 8.4).
    for coding in reversed(message.headers.get("content-encoding", "").lower().split(",")):
        match coding.strip():
            case "gzip" | "x-gzip":
                body = _inflate(body, zlib.MAX_WBITS | 16)
            case "deflate":  # zlib's format; some servers send it without zlib's header
                body = _inflate(body, zlib.MAX_WBITS if body[:1] == b"\x78" else -zlib.MAX_WBITS)
            case "br":
                body = _unbrotli(body)
    return body


def _inflate(data: bytes, window: int) -> bytes:
    decompressor, parts = zlib.decompressobj(window), []
    try:
        for start in range(0, len(data), _READ_BYTES):
            parts.append(decompressor.decompress(data[start : start + _READ_BYTES]))
    except zlib.error:
        pass
    return b"".join(parts) if decompressor.eof or any(parts) else data


def _unbrotli(data: bytes) -> bytes:
    reader, parts = BrotliReader(io.BytesIO(data)), []
    try:
        while part := reader.read(_READ_BYTES):
            parts.append(part)
    except OSError:
        return b"".join(parts) or data
    return b"".join(parts)
