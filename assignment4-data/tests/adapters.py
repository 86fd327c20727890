"""The functions that the course's test suite calls, bound to this package."""

from __future__ import annotations

from typing import Any


def run_extract_text_from_html_bytes(html_bytes: bytes) -> str | None:
    """The text of an HTML page given as bytes; None if the bytes are no text."""
    from cs336_data.extraction import extract_text

    return extract_text(html_bytes)


def run_classify_nsfw(text: str) -> tuple[Any, float]:
    """("nsfw" or "non-nsfw", its probability)."""
    from cs336_data.filters.nsfw import classify_nsfw

    return classify_nsfw(text)


def run_classify_toxic_speech(text: str) -> tuple[Any, float]:
    """("toxic" or "non-toxic", its probability)."""
    from cs336_data.filters.toxic import classify_toxic_speech

    return classify_toxic_speech(text)
