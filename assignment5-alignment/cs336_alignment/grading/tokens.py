r"""Mathematical notation cut into tokens, and the bracket structure of a run of tokens."""

import re
from collections.abc import Iterator, Sequence

OPENING = {"(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil"}
CLOSING = {")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil"}

_TOKEN = re.compile(
    r"(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+(?![\da-zA-Z]))?)"
    r"|(?P<text>\\text\s*\{(?P<words>[^{}]*)\})"
    r"|(?P<matrix>\\(?P<edge>begin|end)\s*\{\s*(?:[pbB]?matrix|array|smallmatrix)\s*\}(?:\{[lcr|\s]*\})?)"
    r"|(?P<command>\\(?:[a-zA-Z]+|.))"
    r"|(?P<letters>[a-zA-Z]+)"
    r"|(?P<sign>\*\*|<=|>=|!=|[^\s])",
    re.DOTALL | re.ASCII,
)
_ALIASES = {"<=": r"\le", ">=": r"\ge", "!=": r"\ne", "**": "^", r"\cdot": "*", r"\times": "*", r"\div": "/"}
FUNCTIONS = {
    "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh", "log", "ln",
    "exp", "abs", "floor", "ceil",
}  # fmt: skip
_CONSTANTS_AND_LETTERS = {"pi", "infty", "alpha", "beta", "gamma", "delta", "theta", "lambda", "omega", "phi"}
_SHORT_WORDS = {"no", "on", "or", "is"}
_LONG_FUNCTIONS = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "infinity": "infty", "inf": "infty"}


class NotMathematics(ValueError):
    """The text is not in the notation that is read here."""


def tokenize(text: str) -> list[str]:
    r"""Tokens of normalized notation: numbers, commands, single letters, words in quotes, signs, `\begin`, `\end`.

    A run of letters becomes the function or constant of that name (`sqrt` becomes `\sqrt`), a product of its letters if
    it is short or has no vowel (`xy`), and else a word, written `"word`.
    """
    return list(_tokens(text))


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match["text"]:
            yield '"' + match["words"].strip()
        elif match["matrix"]:
            yield "\\" + match["edge"]
        elif match["letters"]:
            yield from _letter_tokens(token)
        else:
            yield _ALIASES.get(token, token)


def _letter_tokens(letters: str) -> Iterator[str]:
    name = _LONG_FUNCTIONS.get(letters.lower(), letters.lower())
    if name in FUNCTIONS or name in _CONSTANTS_AND_LETTERS:
        yield "\\" + name
    elif letters.lower() not in _SHORT_WORDS and (len(letters) <= 2 or not set(letters.lower()) & set("aeiou")):
        yield from letters
    else:
        yield '"' + letters


def split_top_level(tokens: Sequence[str], separators: set[str]) -> list[list[str]]:
    """`tokens` cut at the separators that stand outside of all brackets and matrices.

    Raises:
        NotMathematics: if the brackets do not balance.
    """
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token in OPENING or token == r"\begin") - (token in CLOSING or token == r"\end")
        if depth < 0:
            raise NotMathematics("a bracket is closed that was not opened")
        if depth == 0 and token in separators:
            parts.append([])
        else:
            parts[-1].append(token)
    if depth:
        raise NotMathematics("a bracket stays open")
    return parts


def is_bracketed(tokens: Sequence[str]) -> bool:
    """Whether the first token opens a bracket that the last one closes; the two may be of different kinds: (0, 1]."""
    if len(tokens) < 2 or tokens[0] not in OPENING or tokens[-1] not in CLOSING:
        return False
    depth = 0
    for position, token in enumerate(tokens):
        depth += (token in OPENING) - (token in CLOSING)
        if depth == 0:
            return position == len(tokens) - 1
    return False
