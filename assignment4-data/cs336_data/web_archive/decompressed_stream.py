"""A file that was compressed as a whole, read as if it were not: gzip (also of several members) and zstd.

There is no jumping into such a file: seeking backwards starts again from its beginning. Where its data is damaged or
cut short, the stream ends, and `damaged` or `cut_off` says so; everything before that is there.
"""

import zlib
from typing import BinaryIO

import zstandard

CHUNK_BYTES = 1 << 16
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
GZIP_WINDOW = zlib.MAX_WBITS | 16
"""What zlib calls the gzip format."""


class DecompressedStream:
    """The decompressed bytes of `file`, with as much of a file's interface as archive readers ask for.

    Args:
        file: the compressed file, opened for reading bytes.
        codec: "gzip" or "zstd".
    """

    def __init__(self, file: BinaryIO, codec: str) -> None:
        self._file, self._codec = file, codec
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._position, self._buffer, self._unread = 0, b"", b""
        self._decompressor, self._within_member = self._new_decompressor(), False
        self._ended = self.damaged = self.cut_off = False

    def _new_decompressor(self) -> "zlib._Decompress | zstandard.ZstdDecompressionObj":
        return (
            zlib.decompressobj(GZIP_WINDOW) if self._codec == "gzip" else zstandard.ZstdDecompressor().decompressobj()
        )

    def _fill(self) -> None:
        """Put the next decompressed bytes into the buffer, or note that there are none."""
        compressed = self._unread or self._file.read(CHUNK_BYTES)
        self._unread = b""
        if not compressed:
            self._ended, self.cut_off = True, self._within_member
            return
        self._within_member = True
        try:
            self._buffer = self._decompressor.decompress(compressed)
        except (zlib.error, zstandard.ZstdError):
            self._ended = self.damaged = True
            return
        if self._decompressor.eof:  # the next member or frame, if there is one
            self._unread = self._decompressor.unused_data.lstrip(b"\0")
            self._decompressor, self._within_member = self._new_decompressor(), False

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (all of them, if negative); none at the end."""
        parts, missing = [], size
        while missing and not self._ended:
            if not self._buffer:
                self._fill()
                continue
            part = self._buffer if missing < 0 else self._buffer[:missing]
            self._buffer = self._buffer[len(part) :]
            parts.append(part)
            missing -= len(part) if missing > 0 else 0
        data = b"".join(parts)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place counted from the start (whence 0) or from here (1)."""
        target = offset + (self._position if whence == 1 else 0)
        if target < self._position:
            self._restart()
        while self._position < target and self.read(min(CHUNK_BYTES, target - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        """The place in the decompressed bytes."""
        return self._position

    def seekable(self) -> bool:
        """Always: see `seek`."""
        return True

    def close(self) -> None:
        """Close the compressed file."""
        self._file.close()
