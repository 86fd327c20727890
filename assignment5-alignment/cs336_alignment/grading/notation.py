r"""One spelling for mathematics: LaTeX decoration removed, Unicode signs as commands, numbers without separators.

The result is still LaTeX; `tokens.py` cuts it up. All patterns run in linear time.
"""

import re

MAX_LENGTH = 2_000
"""Longer answers, in characters, are compared as text only."""

_SIGNS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "∕": "/", "⁄": "/",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "φ": r"\phi ",
    "∞": r"\infty ", "°": r"^{\circ}", "√": r"\sqrt ", "±": r"\pm ", "∓": r"\mp ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∈": r"\in ", "∅": r"\emptyset ",
    "²": "^{2}", "³": "^{3}", "⁴": "^{4}", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ", "\u2009": " ",
    "％": "%", "，": ",", "（": "(", "）": ")",
}  # fmt: skip
_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge",
    "neq": "ne", "lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "vert": "|",
    "lvert": "|", "rvert": "|", "mid": "|", "degree": r"^{\circ}", "degrees": r"^{\circ}", "varnothing": "emptyset",
    "mbox": "text", "textbf": "text", "textrm": "text", "textit": "text", "mathrm": "text", "mathbf": "text",
    "mathit": "text", "operatorname": "text", "dbinom": "binom", "tbinom": "binom",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "slash": "/", "colon": ":", "land": ",", "lor": ",",
}  # fmt: skip
_DECORATION = re.compile(
    r"\\(?:(?:left|right)(?![a-zA-Z])\.?|(?:middle|displaystyle|textstyle|limits|[bB]igg?[lr]?|q?quad)(?![a-zA-Z])|"
    r"(?:hspace\*?|h?phantom)\{[^{}]*\})"
)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_SPACE_COMMAND = re.compile(r"\\[,;:! \n]|~")
_FRACTION_OF_DIGITS = re.compile(r"\\frac\s*(\d)\s*(\d)")
_MIXED_FRACTION = re.compile(r"(?<![\w.^}])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_MIXED_RATIO = re.compile(r"(?<![\w.^}/])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_REPEATING_DECIMAL = re.compile(r"(?<![\d.])(\d{0,20})\.(\d{0,20})\\overline\s*\{\s*(\d{1,20})\s*\}")
_ALL_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_NUMBER_SET = re.compile(r"\\mathbb\s*\{?\s*([A-Z])\s*\}?")
_ROW_END = re.compile(r"\\\\(?:\s*\[[\d.]+\s*(?:pt|em|ex|mm|cm)\])?")
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_LEAD = re.compile(
    r"(?:thus|so|hence|therefore)?,?\s*(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:)\s*:?\s*", re.I
)
_LATEX_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!\s*|\{,\}|\\[,;:])(?=\d{3}(?!\d))")
_PLAIN_THOUSANDS = re.compile(r"(?<![\d.,\w])(?:[1-9]\d{0,2})(?:,\d{3})+(?![\d,])")


def normalize_notation(answer: str, join_thousands: bool = True) -> str:
    """`answer` without what has no mathematical meaning.

    Args:
        answer: at most `MAX_LENGTH` characters.
        join_thousands: read 10,080 outside of brackets as one number, not as a list of two.
    """
    text = " ".join(answer.split())
    for sign, command in _SIGNS.items():
        text = text.replace(sign, command)
    lead = _LEAD.match(text)
    text = _without_delimiters(text[lead.end() :] if lead else text)
    text = _LATEX_THOUSANDS.sub("", text)
    if join_thousands:
        text = _PLAIN_THOUSANDS.sub(_one_number, text)
    text = text.replace(r"\$", "").replace("$", "").replace(r"\%", "%")
    text = _COMMAND.sub(_one_name, _DECORATION.sub(" ", text))
    text = _REPEATING_DECIMAL.sub(_repeating_fraction, _NUMBER_SET.sub(r" \1", text))
    text = _FRACTION_OF_DIGITS.sub(r"\\frac{\1}{\2}", text)
    text = _MIXED_RATIO.sub(_mixed_number, _MIXED_FRACTION.sub(_mixed_number, text))
    text = _ROW_END.sub("\x00", text)  # a row's end is no space command, whatever follows it
    text = _SPACE_COMMAND.sub(" ", text).replace("\x00", r"\\").strip()
    all_text = _ALL_TEXT.fullmatch(text)
    return all_text[1].strip() if all_text else text


def _one_name(command: re.Match) -> str:
    name = _SAME.get(command[1], command[1])
    return "\\" + name if name.isalpha() else name


def _repeating_fraction(match: re.Match) -> str:
    r"""0.1\overline{6} is 16 - 1 over 90."""
    whole, fixed, repeated = match.groups()
    numerator = int(whole + fixed + repeated) - int(whole + fixed or "0")
    return rf"\frac{{{numerator}}}{{{(10 ** len(repeated) - 1) * 10 ** len(fixed)}}}"


def _mixed_number(match: re.Match) -> str:
    r"""1\frac{4}{5} is 1 + 4/5, where the fraction is a proper one."""
    whole, numerator, denominator = match.groups()
    if len(denominator) < len(numerator) or int(numerator[:20]) >= int(denominator[:20]):
        return match.group()
    return rf"({whole}+\frac{{{numerator}}}{{{denominator}}})"


def _one_number(number: re.Match) -> str:
    before = number.string[: number.start()]
    # Within brackets commas part the coordinates: (15,729) is a point.
    depth = sum(map(before.count, ("(", "[", r"\{"))) - sum(map(before.count, (")", "]", r"\}")))
    return number.group().replace(",", "") if depth <= 0 else number.group()


def _without_delimiters(text: str) -> str:
    text = text.strip().rstrip(".")
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        whole = len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing)
        if whole and opening not in inner and closing not in inner:
            return _without_delimiters(inner)
    return text
