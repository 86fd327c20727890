"""Our text of a page against the text that Common Crawl extracted from it (the WET file).

The two need not be equal: Common Crawl's extractor keeps the page's title and every visible line, ours leaves some of
the furniture out and marks list items. What matters is that no content is lost and none is garbled.
"""

import os
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import regex

from cs336_data.extraction import extract_text
from cs336_data.web_archive.records import read_records

SHINGLE_WORDS = 5
# Scripts without spaces between words are compared by character.
_WORD = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|[^\W_]+(?<![\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"
)


@dataclass(frozen=True)
class PageComparison:
    """How alike two texts of a page are.

    Attributes:
        url: the page's address.
        our_words: words in our text.
        wet_words: words in the WET text.
        precision: share of our words (as a multiset) that the WET text has too.
        recall: share of the WET text's words that ours has too.
        order: Jaccard similarity of the sets of 5-word shingles: 1 only if the words also come in the same order.
        only_ours: lines of our text that the WET text lacks, in order.
        only_wet: lines of the WET text that ours lacks, in order.
    """

    url: str
    our_words: int
    wet_words: int
    precision: float
    recall: float
    order: float
    only_ours: tuple[str, ...] = ()
    only_wet: tuple[str, ...] = ()

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True)
class Comparison:
    """All pages of some archives.

    Attributes:
        pages: those that have text on both sides.
        only_warc: addresses of HTML pages without a WET record.
        only_wet: addresses of WET records without an HTML page.
    """

    pages: list[PageComparison]
    only_warc: list[str]
    only_wet: list[str]

    def mean(self, measure: str) -> float:
        """The mean of a measure ("precision", "recall", "f1" or "order") over the pages; 0 without any."""
        return statistics.fmean(getattr(page, measure) for page in self.pages) if self.pages else 0.0


def compare_texts(url: str, ours: str, wet: str) -> PageComparison:
    """Compare two texts of the page at `url`. Case and punctuation do not count."""
    our_words, wet_words = _words(ours), _words(wet)
    shared = (Counter(our_words) & Counter(wet_words)).total()
    return PageComparison(
        url=url,
        our_words=len(our_words),
        wet_words=len(wet_words),
        precision=shared / len(our_words) if our_words else float(not wet_words),
        recall=shared / len(wet_words) if wet_words else float(not our_words),
        order=_jaccard(_shingles(our_words), _shingles(wet_words)),
        only_ours=_missing_lines(ours, wet_words),
        only_wet=_missing_lines(wet, our_words),
    )


def compare_archives(warc_paths: Iterable[str | os.PathLike], wet_paths: Iterable[str | os.PathLike]) -> Comparison:
    """Compare the HTML pages of WARC files with the records of WET files made from them.

    A WET record belongs to the response that its WARC-Refers-To names, or, where it names none, to that of its URL.
    The WET texts are held in memory.
    """
    wet: dict[str, tuple[str, str]] = {}
    for path in wet_paths:
        for record in read_records(path, types=("conversion",)):
            text = record.payload.decode("utf-8", "replace")
            wet[record.headers.get("warc-refers-to") or record.url] = (record.url, text)
    pages, only_warc = [], []
    for record_id, url, text in _html_texts(warc_paths):
        key = record_id if record_id in wet else url
        if key in wet:
            pages.append(compare_texts(url, text, wet.pop(key)[1]))
        else:
            only_warc.append(url)
    return Comparison(pages, only_warc, [url for url, _ in wet.values()])


def wet_path_of(warc_path: str | os.PathLike) -> Path:
    """Where the WET file of a WARC file lies by Common Crawl's naming: `x.warc.gz` and `x.warc.wet.gz`."""
    path = Path(warc_path)
    return path.with_name(path.name.removesuffix(".gz") + ".wet.gz")


def _html_texts(paths: Iterable[str | os.PathLike]) -> Iterator[tuple[str, str, str]]:
    for path in paths:
        for record in read_records(path, types=("response",)):
            if record.http_status == 200 and record.media_type in ("text/html", "application/xhtml+xml"):
                text = extract_text(record.payload, record.charset)
                if text:
                    yield record.headers.get("warc-record-id", ""), record.url, text


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _shingles(words: list[str]) -> set[tuple[str, ...]]:
    return set(zip(*(words[start:] for start in range(SHINGLE_WORDS)), strict=False)) or {tuple(words)}


def _jaccard(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    return len(first & second) / len(first | second)


def _missing_lines(text: str, other_words: list[str]) -> tuple[str, ...]:
    """Lines whose words do not stand in a row in the other text."""
    other = f" {' '.join(other_words)} "
    return tuple(
        line.strip() for line in text.splitlines() if (words := _words(line)) and f" {' '.join(words)} " not in other
    )
