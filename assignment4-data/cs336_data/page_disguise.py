"""Texts made to look like pages of the web, so that a model does not take the shape of clean text for quality.

What a page shows besides its text: links before and after it, a table of contents, references, lines broken at a width.
"""

import random
import re
import textwrap
from collections.abc import Sequence

LINKS = (
    "Home", "About", "Browse", "Table of Contents", "What's New", "Search", "Help", "Contents", "Random article",
    "Editorial", "Support", "Contact", "Log in", "Privacy policy", "Entry contents", "Bibliography", "Academic tools",
    "Related entries", "Print version", "Cite this page", "Back to top", "Archives", "Subscribe", "Donate", "Site map",
    "Skip to main content", "All rights reserved", "Copyright", "Tools", "Download as PDF", "History", "Languages",
)  # fmt: skip
PUBLISHERS = (
    "Oxford: Oxford University Press",
    "London: Routledge",
    "New York: Norton",
    "Cambridge: Cambridge University Press",
)
JOURNALS = ("History", "Philosophy", "Natural Science", "Economic Studies", "Modern Languages", "Zoology")


def excerpt(article: str, choices: random.Random, num_words: int) -> str:
    """About `num_words` words of a text, from the start of one of its lines to the end of a sentence."""
    lines = article.split("\n")
    first = choices.randrange(len(lines)) if choices.random() < 0.5 else 0
    taken: list[str] = []
    length = 0
    for line in lines[first:]:
        words = line.split(" ")
        if length + len(words) > num_words:
            taken.append(_to_sentence_end(" ".join(words[: num_words - length])))
            break
        taken.append(line)
        length += len(words)
    return "\n".join(filter(None, taken))


def as_page(text: str, choices: random.Random, *, references: bool) -> str:
    """The text as a page might show it: within links, perhaps with its lines broken.

    Args:
        text: lines are paragraphs and headings.
        choices: the source of all choices.
        references: whether it may have a table of contents and a bibliography, as works of reference have.
    """
    words = text.split()
    lines = text.split("\n")
    page = [*_links(choices), lines[0]]
    if references and choices.random() < 0.5:
        page += [f"{number}. {_title(words, choices)}" for number in range(1, choices.randint(3, 12))]
    page += lines[1:]
    if references and choices.random() < 0.7:
        page += ["Bibliography", *(_reference(words, choices) for _ in range(choices.randint(2, 25)))]
    page += _links(choices)
    if choices.random() < 0.4:
        width = choices.choice((60, 72, 80))
        page = [line for paragraph in page for line in textwrap.wrap(paragraph, width) or [""]]
    return choices.choice(("\n", "\n\n")).join(page)


def _to_sentence_end(text: str) -> str:
    end = max(text.rfind(mark) for mark in (". ", "? ", "! "))
    return text[: end + 1] if end > 0 else text


def _links(choices: random.Random) -> list[str]:
    bullet = choices.choice(("", "", "• ", "- ", "* "))
    return [bullet + link for link in choices.sample(LINKS, choices.randint(0, 12))]


def _title(words: Sequence[str], choices: random.Random) -> str:
    start = choices.randrange(max(len(words) - 6, 1))
    return re.sub(r"[^\w\s'-]", "", " ".join(words[start : start + choices.randint(1, 6)])).strip().capitalize()


def _reference(words: Sequence[str], choices: random.Random) -> str:
    name = f"{_title(words, choices).partition(' ')[0].capitalize()}, {choices.choice('ABCDEFGHJKLMPRST')}."
    title, year, first = _title(words, choices).title(), choices.randint(1850, 2020), choices.randint(1, 400)
    pages = f"{first}–{first + choices.randint(4, 40)}"
    return choices.choice(
        (
            f"{name}, {year}, {title}, {choices.choice(PUBLISHERS)}.",
            f"{name} ({year}). {title}. Journal of {choices.choice(JOURNALS)}, {choices.randint(1, 90)}: {pages}.",
            f"[{choices.randint(1, 60)}] {title} ({year}), pp. {pages}.",
        )
    )
