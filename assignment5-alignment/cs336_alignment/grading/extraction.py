"""The final answer within a response: the last box, or what stands in the last answer tags."""

import re

_BOX = re.compile(r"\\f?box(?:ed)?(?![a-zA-Z])\s*")
_UNBRACED = re.compile(r"[^\s$]+")

THOUGHT_TO_ANSWER = "</think> <answer>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"


def has_answer_tags(response: str) -> bool:
    """Whether the response to an r1_zero prompt, which itself ends in `<think>`, keeps that prompt's format."""
    return THOUGHT_TO_ANSWER in response and ANSWER_CLOSE in response


def tagged_answer(response: str) -> str | None:
    """What stands between the last `<answer>` and the `</answer>` after it (or the end), None without `<answer>`."""
    _, tag, rest = response.rpartition(ANSWER_OPEN)
    return rest.partition(ANSWER_CLOSE)[0].strip() if tag else None


def has_box(text: str) -> bool:
    r"""Whether `text` has a `\boxed` or `\fbox`, well-formed or not."""
    return _BOX.search(text) is not None


def boxed_answer(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` or `\fbox{…}` in `text`, nested braces included, or None.

    `\boxed 5` without braces holds what follows up to white space or a dollar sign. A last box that is never closed,
    as in a response that was cut off, holds no answer.
    """
    last = None
    for last in _BOX.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    start = last.end()
    if not text.startswith("{", start):
        content = _UNBRACED.match(text, start)
        return content.group().rstrip(".,;") if content else None
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return text[start + 1 : start + brace.start()].strip()
    return None
