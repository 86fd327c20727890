"""Line and page rules of C4 (Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2).

Lines that are no sentences go, and so do pages with too few sentences left, with code, filler text or bad words.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from cs336_basics.command_line import UsageError
from cs336_data.document import Decision, Document, Span
from cs336_data.words import ELLIPSES, WORD, Line, blank_line_between, lines_of

TERMINAL = (".", "!", "?", '"', "”", "’", "»")
"""Full stop, exclamation mark, question mark, and what closes a quotation."""
MAX_SPANS = 100
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|\Z)")
_JAVASCRIPT = re.compile(r"\bjavascript\b", re.IGNORECASE)
_LOREM_IPSUM = re.compile(r"\blorem ipsum\b", re.IGNORECASE)
_CURLY_BRACKET = re.compile(r"\{")


class C4LinesFilter:
    """Removes lines that are no sentences, and rejects pages by what they hold.

    The page rules look at the text that comes in, the count of sentences at what is left of it.

    Args:
        terminal_punctuation: keep only lines that end in a full stop, an exclamation mark, a question mark or a closing
            quotation mark, and not in an ellipsis.
        min_line_words: keep only lines of at least this many words.
        min_sentences: reject pages with fewer sentences than this left.
        remove_javascript_lines: remove lines that speak of JavaScript ("please enable JavaScript").
        reject_lorem_ipsum: reject pages with the filler text "lorem ipsum".
        reject_curly_brackets: reject pages with "{", which is code rather than prose.
        bad_words: words, or a file with one word or phrase per line, that reject a page.

    Raises:
        UsageError: a negative number, or a list of bad words that is empty.
        OSError: the file of bad words cannot be read.
    """

    name: ClassVar[str] = "c4_lines"

    def __init__(
        self,
        *,
        terminal_punctuation: bool = True,
        min_line_words: int = 5,
        min_sentences: int = 3,
        remove_javascript_lines: bool = True,
        reject_lorem_ipsum: bool = True,
        reject_curly_brackets: bool = True,
        bad_words: Iterable[str] | str | os.PathLike | None = None,
    ) -> None:
        for option, value in (("min_line_words", min_line_words), ("min_sentences", min_sentences)):
            if value < 0:
                raise UsageError(f"{option} {value} must be at least 0")
        self.terminal_punctuation = terminal_punctuation
        self.min_line_words = min_line_words
        self.min_sentences = min_sentences
        self.remove_javascript_lines = remove_javascript_lines
        page_rules = {
            "lorem ipsum": _LOREM_IPSUM if reject_lorem_ipsum else None,
            "a curly bracket": _CURLY_BRACKET if reject_curly_brackets else None,
            "a bad word": None if bad_words is None else _bad_words_pattern(bad_words),
        }
        self.page_rules = {what: pattern for what, pattern in page_rules.items() if pattern}

    def __call__(self, document: Document) -> Decision:
        """Reject the page, or hand on the lines that are sentences."""
        text = document.text
        for what, pattern in self.page_rules.items():
            spans = tuple(Span(*match.span(), what) for match in pattern.finditer(text))
            if spans:
                found = text[spans[0].start : spans[0].end]
                return Decision(False, f"{what} ({found!r}, {len(spans)} times)", spans=spans[:MAX_SPANS])

        kept: list[Line] = []
        removed: list[Span] = []
        for line in lines_of(text):
            if fault := self._fault(line.text):
                removed.append(Span(line.start, line.end, fault))
            else:
                kept.append(line)
        sentences = sum(len(_SENTENCE_END.findall(line.text)) for line in kept)
        if sentences < self.min_sentences:
            reason = f"{sentences} sentences, at least {self.min_sentences} are needed"
            if removed:
                faults = Counter(span.label for span in removed)
                reason += f"; removed lines: {', '.join(f'{count} {fault}' for fault, count in faults.most_common())}"
            return Decision(False, reason, spans=tuple(removed[:MAX_SPANS]))
        if not removed:
            return Decision(True)
        return Decision(True, text=_joined(text, kept), metadata={"c4_removed_lines": len(removed)})

    def _fault(self, line: str) -> str:
        """Why a line goes; empty for one that stays."""
        if self.terminal_punctuation and (not line.endswith(TERMINAL) or line.endswith(ELLIPSES)):
            return "without terminal punctuation"
        if self.min_line_words and len(WORD.findall(line)) < self.min_line_words:
            return f"under {self.min_line_words} words"
        if self.remove_javascript_lines and _JAVASCRIPT.search(line):
            return "about JavaScript"
        return ""


def _joined(text: str, kept: list[Line]) -> str:
    """The lines kept of a text, apart by a blank line where the text has one between them."""
    pieces = [kept[0].text] if kept else []
    for before, line in pairwise(kept):
        pieces += "\n\n" if blank_line_between(text, before, line) else "\n", line.text
    return "".join(pieces)


def _bad_words_pattern(words: Iterable[str] | str | os.PathLike) -> re.Pattern[str]:
    """A pattern of whole words; longer phrases first."""
    source = "bad_words"
    if isinstance(words, str | os.PathLike):
        source = os.fspath(words)
        words = Path(words).read_text(encoding="utf-8").splitlines()
    listed = {word.strip() for word in words if word.strip()}
    if not listed:
        raise UsageError(f"{source!r} holds no word: at least one is needed")
    alternatives = "|".join(re.escape(word) for word in sorted(listed, key=lambda word: (-len(word), word)))
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)
