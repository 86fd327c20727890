"""The functions that the course's test suite calls, bound to this package."""

from __future__ import annotations


def run_extract_text_from_html_bytes(html_bytes: bytes) -> str | None:
    """The text of an HTML page given as bytes; None if the bytes are no text."""
    from cs336_data.extraction import extract_text

    return extract_text(html_bytes)
