"""Repetition rules of Gopher (Rae et al. 2021, "Scaling Language Models", table A1).

A copy is an occurrence after the first. Shares of characters count the characters of words, or of stripped lines and
paragraphs, and none of them twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress, islice
from typing import ClassVar

from cs336_basics.command_line import UsageError
from cs336_data.document import Decision, Document, Span
from cs336_data.repeated_ngrams import NgramRepetitions
from cs336_data.words import WORD, Line, lines_of, paragraphs_of, words_of

NgramLimits = tuple[tuple[int, float], ...]

TOP_NGRAM_LIMITS = ((2, 0.20), (3, 0.18), (4, 0.16))
COPIED_NGRAM_LIMITS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
MAX_SPANS = 100
MAX_N = 100


@dataclass(frozen=True)
class RepetitionFilter:
    """Rejects documents that repeat themselves. A limit itself is still allowed.

    Attributes:
        max_copied_lines: greatest share of lines that are copies.
        max_copied_line_characters: greatest share of characters in them.
        max_copied_paragraphs: greatest share of paragraphs (set apart by blank lines) that are copies.
        max_copied_paragraph_characters: greatest share of characters in them.
        top_ngrams: pairs of n and the greatest share of characters in the most frequent n-gram of words.
        copied_ngrams: pairs of n and the greatest share of characters in n-grams of words that are copies.
    """

    name: ClassVar[str] = "repetition"

    max_copied_lines: float = 0.30
    max_copied_line_characters: float = 0.20
    max_copied_paragraphs: float = 0.30
    max_copied_paragraph_characters: float = 0.20
    top_ngrams: NgramLimits = TOP_NGRAM_LIMITS
    copied_ngrams: NgramLimits = COPIED_NGRAM_LIMITS

    def __post_init__(self) -> None:
        limits = {
            limit: getattr(self, limit)
            for piece in ("line", "paragraph")
            for limit in (f"max_copied_{piece}s", f"max_copied_{piece}_characters")
        }
        for kind in ("top_ngrams", "copied_ngrams"):
            for n, limit in getattr(self, kind):
                if not (isinstance(n, int) and 1 <= n <= MAX_N):
                    raise UsageError(f"{kind} of {n!r} words are impossible: n must be from 1 to {MAX_N}")
                limits[f"{kind}[{n}]"] = limit
        for limit, value in limits.items():
            if not 0 <= value <= 1:
                raise UsageError(f"{limit} {value} is out of range: it must be from 0 to 1")

    def __call__(self, document: Document) -> Decision:
        """Keep the document unless a share is above its limit; the reason names the first such share."""
        return next(self._objections(document.text), Decision(True))

    def _objections(self, text: str) -> Iterator[Decision]:
        for piece, pieces in (("line", lines_of(text)), ("paragraph", paragraphs_of(text))):
            copies = copies_among(pieces)
            if not copies:
                continue
            characters = sum(len(copy.text) for copy in copies) / sum(len(one.text) for one in pieces)
            spans = tuple(Span(copy.start, copy.end, f"copied {piece}") for copy in copies[:MAX_SPANS])
            for share, limit, what in (
                (len(copies) / len(pieces), getattr(self, f"max_copied_{piece}s"), f"{piece}s"),
                (characters, getattr(self, f"max_copied_{piece}_characters"), f"characters in {piece}s"),
            ):
                if share > limit:
                    yield Decision(
                        False, f"{share:.1%} of {what} are copies, at most {limit:.0%} are allowed", spans=spans
                    )

        repetitions = NgramRepetitions(words_of(text))
        for kind, limits, measure in (
            ("the most frequent {}-gram", self.top_ngrams, repetitions.most_frequent),
            ("copied {}-grams", self.copied_ngrams, repetitions.copied),
        ):
            for n, limit in limits:
                covered = measure(n)
                share = repetitions.share_of_characters(covered)
                if share > limit:
                    label = kind.format(n)
                    places = islice(compress(WORD.finditer(text), covered), MAX_SPANS)
                    reason = f"{share:.1%} of characters in {label}, at most {limit:.0%} are allowed"
                    yield Decision(False, reason, spans=tuple(Span(*word.span(), label) for word in places))


def copies_among(pieces: list[Line]) -> list[Line]:
    """The pieces whose text occurred before, in order."""
    if len({piece.text for piece in pieces}) == len(pieces):
        return []
    seen: set[str] = set()
    copies = []
    for piece in pieces:
        if piece.text in seen:
            copies.append(piece)
        seen.add(piece.text)
    return copies
