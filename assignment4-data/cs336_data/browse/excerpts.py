"""A document's text cut into pieces for display: what a decision rests on, masks, and characters nobody would see.

Pieces are cut here and not in the browser: Python counts characters by code points, JavaScript by UTF-16 units.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from cs336_data.document import Span

Piece = str | list[str]
"""Plain text as it is, or `[kind, text, label]` with the kind "span", "mask", "control" or "gap"."""

MASK = re.compile(r"\|\|\|[A-Z][A-Z0-9_]*\|\|\|")
"""What stands in a text for personal data that was masked."""

# Control characters but tab and newline; marks that turn the direction of the text around (UAX 9), so that it reads
# other than it is; invisible characters, but the joiners (U+200C, U+200D) that emoji and Persian are written with; lone
# surrogates; tags (U+E0000 on).
_UNSEEN = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f])\\1*"
)
_AROUND = 100
"""Characters shown on either side of a span that lies beyond the beginning of a text."""


def visible(text: str) -> str:
    """The text with characters that are not to be seen, or that turn others around, written as their code points."""
    return _UNSEEN.sub(lambda match: f"⟨{_code_points(match)}⟩", text)


def spans_of(record: dict[str, Any]) -> list[Span]:
    """The record's spans that lie within its text, in order; what is not a span is left out."""
    spans = []
    for value in record.get("spans") or []:
        match value:
            case [int(start), int(end), str(label)] if 0 <= start < end <= len(record["text"]):
                spans.append(Span(start, end, label))
    return sorted(spans)


def pieces_of(text: str, spans: Sequence[Span], max_characters: int) -> list[Piece]:
    """The text in pieces.

    Args:
        text: the text.
        spans: what to highlight; where several overlap, the piece has all their labels.
        max_characters: so much is shown of the beginning, and as much again around spans further on.
    """
    pieces: list[Piece] = []
    done = 0
    for start, end in _windows(len(text), spans, max_characters):
        if start > done:
            pieces.append(_gap(start - done))
        marks = [("span", span) for span in spans if span.start < end and span.end > start]
        # A mask that reaches across the border of what is shown is cut like any other text.
        marks += [("mask", Span(*match.span(), match.group().strip("|"))) for match in MASK.finditer(text, start, end)]
        pieces += _cut(text, start, end, marks)
        done = end
    if done < len(text):
        pieces.append(_gap(len(text) - done))
    return pieces


def labels_of(spans: Iterable[Span]) -> list[tuple[str, int]]:
    """What is highlighted and how often, the most frequent first."""
    return Counter(visible(span.label) for span in spans).most_common()


def _windows(length: int, spans: Sequence[Span], max_characters: int) -> list[tuple[int, int]]:
    """What is shown of a text, without overlaps."""
    windows = [(0, min(length, max_characters))]
    left = max_characters
    for span in spans:
        first, last = windows[-1]
        if span.end <= last:
            continue
        start = max(last, span.start - _AROUND)
        end = min(length, span.end + _AROUND, start + left)
        if end <= start:
            break
        left -= end - start
        windows[-1:] = [(first, end)] if start == last else [(first, last), (start, end)]
    return windows


def _gap(num_characters: int) -> Piece:
    return ["gap", f"{num_characters:,} characters are not shown", ""]


def _cut(text: str, start: int, end: int, marks: Sequence[tuple[str, Span]]) -> Iterator[Piece]:
    """`text[start:end]` in pieces, cut wherever a mark begins or ends."""
    borders = {start, end}
    opening: dict[int, list[tuple[str, Span]]] = {}
    for kind, span in marks:
        first, last = max(span.start, start), min(span.end, end)
        borders |= {first, last}
        opening.setdefault(first, []).append((kind, span))
    places = sorted(borders)
    here: list[tuple[str, Span]] = []
    for first, last in pairwise(places):
        here = [(kind, span) for kind, span in here if span.end > first] + opening.get(first, [])
        kinds = {kind for kind, _ in here}
        labels = " + ".join(dict.fromkeys(visible(span.label) for _, span in here))
        kind = "mask" if "mask" in kinds else "span" if kinds else ""
        yield from _show_unseen(text[first:last], kind, labels)


def _show_unseen(text: str, kind: str, labels: str) -> Iterator[Piece]:
    done = 0
    for match in _UNSEEN.finditer(text):
        if match.start() > done:
            yield _piece(text[done : match.start()], kind, labels)
        yield ["control", _code_points(match), labels]
        done = match.end()
    if done < len(text):
        yield _piece(text[done:], kind, labels)


def _piece(text: str, kind: str, labels: str) -> Piece:
    return [kind, text, labels] if kind else text


def _code_points(match: re.Match[str]) -> str:
    times = f" ×{len(match.group())}" if len(match.group()) > 1 else ""
    return f"U+{ord(match.group(1)):04X}{times}"
