"""Quality rules of Gopher (Rae et al. 2021, "Scaling Language Models", appendix A.1.1)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, NamedTuple

from cs336_basics.command_line import UsageError
from cs336_data.document import Decision, Document, Span
from cs336_data.words import ELLIPSES, WORD, Line, has_letter, lines_of, lone_symbols, words_of

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
BULLETS = ("•", "‣", "▪", "●", "◦", "⁃", "–", "—", "-", "*", "·")
RULE_SETS = ("course", "paper")
MAX_SPANS = 100


class _Text(NamedTuple):
    """A text with what the rules look at."""

    text: str
    words: list[str]
    lines: list[Line]


@dataclass(frozen=True)
class GopherFilter:
    """Rejects what is not prose by the counts of its words, lines and symbols; meant for English.

    A limit itself is still allowed: 50 words pass. Words are those of `cs336_data.words`; blank lines do not count.

    Attributes:
        rules: "course" for the first four limits, which CS336 asks for; "paper" for all of them.
        min_words: least number of words.
        max_words: greatest number of words.
        min_mean_word_length: least mean length of the words, in characters.
        max_mean_word_length: greatest mean length of the words, in characters.
        max_ellipsis_lines: greatest share of the lines that end in an ellipsis.
        min_alphabetic_words: least share of words with a letter among the words and the symbols that stand alone.
        max_symbols_per_word: greatest number of hash signs, and of ellipses, per word.
        max_bullet_lines: greatest share of the lines that begin with a bullet.
        min_stop_words: how many different ones of the, be, to, of, and, that, have, with must occur.
    """

    name: ClassVar[str] = "gopher"

    rules: str = "course"
    min_words: int = 50
    max_words: int = 100_000
    min_mean_word_length: float = 3.0
    max_mean_word_length: float = 10.0
    max_ellipsis_lines: float = 0.3
    min_alphabetic_words: float = 0.8
    max_symbols_per_word: float = 0.1
    max_bullet_lines: float = 0.9
    min_stop_words: int = 2

    def __post_init__(self) -> None:
        if self.rules not in RULE_SETS:
            raise UsageError(f"rules {self.rules!r} are unknown: they must be one of {', '.join(RULE_SETS)}")
        for low, high in (("min_words", "max_words"), ("min_mean_word_length", "max_mean_word_length")):
            least, greatest = getattr(self, low), getattr(self, high)
            if not 0 <= least <= greatest:
                raise UsageError(f"{low} {least} and {high} {greatest} must satisfy 0 <= {low} <= {high}")
        for share in ("max_ellipsis_lines", "min_alphabetic_words", "max_bullet_lines"):
            if not 0 <= getattr(self, share) <= 1:
                raise UsageError(f"{share} {getattr(self, share)} is out of range: it must be from 0 to 1")
        if self.max_symbols_per_word < 0:
            raise UsageError(f"max_symbols_per_word {self.max_symbols_per_word} must be at least 0")
        if not 0 <= self.min_stop_words <= len(STOP_WORDS):
            raise UsageError(f"min_stop_words {self.min_stop_words} must be from 0 to {len(STOP_WORDS)}")

    def __call__(self, document: Document) -> Decision:
        """Keep the document if no rule objects; else reject it with the first rule's figure."""
        text = _Text(document.text, words_of(document.text), lines_of(document.text))
        rules = COURSE_RULES if self.rules == "course" else COURSE_RULES + OTHER_RULES
        for rule in rules:
            if objection := rule(self, text):
                return objection
        return Decision(True)


def passes_gopher(text: str) -> bool:
    """Whether a text passes the four rules of CS336: see `GopherFilter`."""
    return GopherFilter()(Document(text)).keep


def _word_count(limits: GopherFilter, text: _Text) -> Decision | None:
    count = len(text.words)
    if count < limits.min_words:
        return Decision(False, f"{count} words, at least {limits.min_words:,} are needed")
    if count > limits.max_words:
        return Decision(False, f"{count:,} words, at most {limits.max_words:,} are allowed")
    return None


def _mean_word_length(limits: GopherFilter, text: _Text) -> Decision | None:
    if not text.words:
        return None
    mean = sum(map(len, text.words)) / len(text.words)
    if mean < limits.min_mean_word_length:
        reason = f"mean word length {mean:.2f}, at least {limits.min_mean_word_length:g} is needed"
        return Decision(False, reason, spans=_word_spans(text.text, "short word", lambda w: len(w) < mean))
    if mean > limits.max_mean_word_length:
        reason = f"mean word length {mean:.2f}, at most {limits.max_mean_word_length:g} is allowed"
        return Decision(False, reason, spans=_word_spans(text.text, "long word", lambda w: len(w) > mean))
    return None


def _ellipsis_lines(limits: GopherFilter, text: _Text) -> Decision | None:
    found = [line for line in text.lines if line.text.endswith(ELLIPSES)]
    return _line_share(found, text, limits.max_ellipsis_lines, "end in an ellipsis", "ellipsis")


def _alphabetic_words(limits: GopherFilter, text: _Text) -> Decision | None:
    with_letter = sum(map(has_letter, text.words))
    total = len(text.words) + len(lone_symbols(text.text))
    if not total or with_letter / total >= limits.min_alphabetic_words:
        return None
    reason = f"{with_letter / total:.1%} of words with a letter, at least {limits.min_alphabetic_words:.0%} are needed"
    return Decision(False, reason, spans=_word_spans(text.text, "no letter", lambda w: not has_letter(w)))


def _symbols_per_word(limits: GopherFilter, text: _Text) -> Decision | None:
    for symbols, plural in ((("#",), "hash signs"), (ELLIPSES, "ellipses")):
        count = sum(map(text.text.count, symbols))
        per_word = count / max(len(text.words), 1)
        if per_word > limits.max_symbols_per_word:
            reason = f"{per_word:.2f} {plural} per word, at most {limits.max_symbols_per_word:g} are allowed"
            return Decision(False, reason, spans=tuple(islice(_occurrences(text.text, symbols), MAX_SPANS)))
    return None


def _bullet_lines(limits: GopherFilter, text: _Text) -> Decision | None:
    found = [line for line in text.lines if line.text.startswith(BULLETS)]
    return _line_share(found, text, limits.max_bullet_lines, "begin with a bullet", "bullet")


def _stop_words(limits: GopherFilter, text: _Text) -> Decision | None:
    found = STOP_WORDS.intersection(map(str.lower, text.words))
    if len(found) >= limits.min_stop_words:
        return None
    reason = f"{len(found)} of the stop words {', '.join(sorted(STOP_WORDS))}, at least {limits.min_stop_words} needed"
    return Decision(False, reason)


COURSE_RULES: tuple[Callable[[GopherFilter, _Text], Decision | None], ...] = (
    _word_count,
    _mean_word_length,
    _ellipsis_lines,
    _alphabetic_words,
)
OTHER_RULES: tuple[Callable[[GopherFilter, _Text], Decision | None], ...] = (
    _symbols_per_word,
    _bullet_lines,
    _stop_words,
)


def _line_share(found: list[Line], text: _Text, limit: float, what: str, label: str) -> Decision | None:
    if not text.lines or len(found) / len(text.lines) <= limit:
        return None
    reason = f"{len(found) / len(text.lines):.1%} of lines {what}, at most {limit:.0%} are allowed"
    return Decision(False, reason, spans=tuple(Span(line.start, line.end, label) for line in found[:MAX_SPANS]))


def _word_spans(text: str, label: str, wanted: Callable[[str], bool]) -> tuple[Span, ...]:
    spans: Iterable[Span] = (Span(*match.span(), label) for match in WORD.finditer(text) if wanted(match.group()))
    return tuple(islice(spans, MAX_SPANS))


def _occurrences(text: str, symbols: tuple[str, ...]) -> Iterator[Span]:
    for symbol in symbols:
        start = text.find(symbol)
        while start >= 0:
            yield Span(start, start + len(symbol), symbol)
            start = text.find(symbol, start + len(symbol))
