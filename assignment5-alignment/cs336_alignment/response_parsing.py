"""Answers in free text: the option that a response to an MMLU question chooses, the number at the end of a GSM8K one.

Both follow how the benchmarks are scored without a strict answer format: MMLU (Hendrycks et al. 2021, arXiv:2009.03300)
by the letter of the option, GSM8K (Cobbe et al. 2021, arXiv:2110.14168) by the last number.
"""

import re
from collections.abc import Iterator
from typing import Any

_LETTERS = "ABCD"
_MIN_TEXT_LENGTH = 4
"""Characters; the text of a shorter option may stand in a response by chance."""

_NEXT_QUESTION = re.compile(r"\n(?:Question|User|Human|Q) ?:")
_MARKS = r"(?:\*\*|\\(?:text(?:bf)?|boxed)\{|\\\(|[\s(\[\"'`$“])*"
# A capital stands for an option whatever follows as a word of its own; "a" does so only where it ends a clause.
_LETTER = (
    rf"{_MARKS}(?:(?P<capital>[A-Z])(?![\w'’+-])"
    r"|(?P<small>[a-z])(?=[)\]\"'`.,;:!}*]{0,4}(?:\s*$|\s*\n|(?<=[.,;:!)])\s)))"
)
_ANSWER_IS = (
    r"(?i:\b(?:answer|choice|option)(?:\s+(?:here|choice|option))?\s*(?:is|would be|must be|should be|:|=))\s*:?"
)
_STATED = re.compile(rf"{_ANSWER_IS}(?:\s*(?i:option|choice|letter)\b)?{_LETTER}")
_CHOSEN = re.compile(
    r"(?i:\b(?:choose|select|pick|go with|option|choice|is|be|it's)\b)\s*:?"
    rf"{_MARKS}(?P<capital>[B-Z]|A(?!\s+\w))(?![\w'’+-])"
)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text(?:bf)?\s*\{)?\s*\(?\s*(?P<capital>[A-Z])\s*\)?\s*\}")
_LEADING = re.compile(r"\s*(?:\*\*|[(\[\"'`])*(?P<capital>[A-Z])(?:\*\*|[)\]\"'`.:,])*(?:\s*$|\s*\n|(?<=[)\].:,*])\s)")
_BRACKETED = re.compile(r"[(\[](?P<capital>[A-Z])[)\]]")

_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]}])[-−])?(?:\\?[$€£]\s*(?P<inner>[-−])?)?"
    r"(?P<digits>(?:(?<!\d)\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)",
    re.ASCII,
)


def parse_mmlu_response(mmlu_example: dict[str, Any], model_output: str) -> str | None:
    """The letter of the option that a response to a multiple-choice question chooses, or None if it is not clear.

    What counts is the first of these that is there: "The correct answer is B" or "Answer: B" (of several the last), a
    letter at the very beginning ("B.", "(B) because"), a choice in other words ("I pick C"), one letter in brackets,
    the text of one option. What follows a further `Question:` is left alone, and the article A is no letter.

    Args:
        mmlu_example: the question; `options` holds the texts of the options, A first.
        model_output: the response; any string.
    """
    options = [str(option) for option in mmlu_example.get("options", [])]
    allowed = _LETTERS[: len(options)] if 0 < len(options) <= len(_LETTERS) else _LETTERS
    # Long runs of white space would make the patterns slow.
    lines = [" ".join(line.split()) for line in model_output.splitlines()]
    output = _NEXT_QUESTION.split("\n".join(line for line in lines if line), maxsplit=1)[0]
    for found in (_letters(_BOXED, output), _letters(_STATED, output)):
        if found:
            return found[-1] if found[-1] in allowed else None
    leading = _LEADING.match(output)
    if leading and leading["capital"] in allowed:
        return leading["capital"]
    for pattern in (_CHOSEN, _BRACKETED):
        found = set(_letters(pattern, output)) & set(allowed)
        if len(found) == 1:
            return found.pop()
    return _option_by_text(options, output)


def _letters(pattern: re.Pattern[str], output: str) -> list[str]:
    groups = (match.groupdict() for match in pattern.finditer(output))
    return [(group["capital"] or group["small"]).upper() for group in groups]


def _option_by_text(options: list[str], output: str) -> str | None:
    """The letter of the only option that the output consists of, names as its answer, or mentions at length."""
    texts = [" ".join(option.split()).casefold().rstrip(".") for option in options]
    said = " ".join(output.split()).casefold()
    for mentioned in (
        [index for index, text in enumerate(texts) if text and said.strip(" .\"'") == text],
        list(_options_in(texts, said, rf"{_ANSWER_IS}[\s\"']*")),
        [index for index in _options_in(texts, said) if len(texts[index]) >= _MIN_TEXT_LENGTH],
    ):
        # Where one option's text is part of another's that is there too, the longer one is meant.
        longest = [i for i in mentioned if not any(i != j and texts[i] in texts[j] for j in mentioned)]
        if len(longest) == 1:
            return _LETTERS[longest[0]] if longest[0] < len(_LETTERS) else None
        if mentioned:
            return None
    return None


def _options_in(texts: list[str], said: str, before: str = "") -> Iterator[int]:
    for index, text in enumerate(texts):
        if text and re.search(rf"{before}(?<![\w.]){re.escape(text)}(?![\w%]|[.,]\d)", said):
            yield index


def parse_gsm8k_response(model_output: str) -> str | None:
    """The last number in a response, as a string of an optional minus sign, digits and decimals; None if there is none.

    Separators of thousands and currency signs are left out: "-$1,234.50" gives "-1234.50". The minus of a difference
    such as 9-2 is no sign.
    """
    last = None
    for last in _NUMBER.finditer(model_output):  # noqa: B007
        pass
    if last is None:
        return None
    sign = "-" if last["sign"] or last["inner"] else ""
    return sign + last["digits"].replace(",", "")
