"""What classifiers are trained on: labeled texts, or texts of two kinds; a part is held out to measure on."""

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import xxhash
from tqdm import tqdm

from cs336_basics.command_line import UsageError
from cs336_data.extraction import extract_text
from cs336_data.small_web.generator import make_page
from cs336_data.training_texts import read_labeled, read_texts

Example = tuple[bool, str]
"""Whether a text is positive (unsafe, or a work of reference), and the text."""

_SHAPELESS = ("menu", "list", "spam", "short", "code")
"""The small web's kinds of pages that no article is like."""


class Split(NamedTuple):
    """Examples to train on, and others to measure on."""

    train: list[Example]
    held_out: list[Example]


def split(examples: Iterable[Example], held_out_share: float) -> Split:
    """Hold a share out, by a hash of the text: copies of a text stay together, and more data move none."""
    parts = Split([], [])
    for positive, text in examples:
        (parts.held_out if is_held_out(text, held_out_share) else parts.train).append((positive, text))
    return parts


def is_held_out(text: str, share: float) -> bool:
    """Whether `split` with this share holds the text out."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace")) < share * 2**64


def labeled_examples(
    paths: Sequence[str], text_field: str, label_field: str, positive_labels: Sequence[str]
) -> Iterator[Example]:
    """The texts of labeled files, HTML entities decoded; positive are those with one of these labels.

    Raises:
        UsageError: see `read_labeled`.
    """
    for path in paths:
        for text, label in read_labeled(path, text_field, label_field):
            yield label in positive_labels, html.unescape(text)


def paired_examples(positive: Sequence[str], negative: Sequence[str], text_field: str) -> Iterator[Example]:
    """The texts of two lists of files.

    Raises:
        UsageError: see `read_texts`; or one of the lists has no text.
    """
    for is_positive, paths in ((True, positive), (False, negative)):
        found = 0
        for path in tqdm(paths, desc="reading", unit="file", disable=None):
            for text in read_texts(path, text_field):
                found += 1
                yield is_positive, text
        if not found:
            raise UsageError(f"there is no text in {', '.join(paths)}")


def small_web_examples(positive_kind: str, num_pages: int, seed: int = 0) -> Iterator[Example]:
    """English pages of the small web: those of one kind, and the others."""
    for number in range(num_pages):
        page = make_page(seed, number)
        if page.language == "en" and (text := extract_text(page.html(), page.http_charset or None)):
            yield page.kind == positive_kind, text


def shapeless_pages(num_pages: int, seed: int = 0) -> list[str]:
    """Pages of the small web that are no prose at all."""
    pages = (make_page(seed, number) for number in range(num_pages))
    texts = (extract_text(page.html(), page.http_charset or None) for page in pages if page.kind in _SHAPELESS)
    return list(filter(None, texts))
