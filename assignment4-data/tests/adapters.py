"""The functions that the course's test suite calls, bound to this package."""

from __future__ import annotations

import os
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


def run_identify_language(text: str) -> tuple[Any, float]:
    """The ISO code of a text's language and its score in (0, 1]."""
    from cs336_data.filters.language import identify_language

    return identify_language(text)


def run_mask_emails(text: str) -> tuple[str, int]:
    """The text with its email addresses masked, and how many there were."""
    from cs336_data.filters.pii import mask_emails

    return mask_emails(text)


def run_mask_phone_numbers(text: str) -> tuple[str, int]:
    """The text with its phone numbers masked, and how many there were."""
    from cs336_data.filters.pii import mask_phone_numbers

    return mask_phone_numbers(text)


def run_mask_ips(text: str) -> tuple[str, int]:
    """The text with its IPv4 addresses masked, and how many there were."""
    from cs336_data.filters.pii import mask_ips

    return mask_ips(text)


def run_gopher_quality_filter(text: str) -> bool:
    """Whether a text passes Gopher's four rules of the handout."""
    from cs336_data.filters.gopher import passes_gopher

    return passes_gopher(text)


def run_exact_line_deduplication(input_files: list[os.PathLike], output_directory: os.PathLike) -> None:
    """Write every input file under its own name with only those lines that occur once in all of them."""
    from cs336_data.dedup.exact_lines import exact_line_deduplication

    exact_line_deduplication(input_files, output_directory)


def run_minhash_deduplication(
    input_files: list[os.PathLike],
    num_hashes: int,
    num_bands: int,
    ngrams: int,
    jaccard_threshold: float,
    output_directory: os.PathLike,
) -> None:
    """Write the input files but for near-duplicates, of which one of each cluster stays."""
    from cs336_data.dedup.minhash_documents import minhash_deduplication

    minhash_deduplication(input_files, num_hashes, num_bands, ngrams, jaccard_threshold, output_directory)


def run_classify_quality(text: str) -> tuple[Any, float]:
    """("wiki" or "cc", its probability)."""
    from cs336_data.filters.quality import classify_quality

    return classify_quality(text)
