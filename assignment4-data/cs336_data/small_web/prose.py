"""Articles in English and six other languages, from the grammars beside this module."""

import functools
from importlib import resources

from cs336_basics.stories import Grammar, expand, read_grammar
from cs336_data.small_web.choices import Choices

LANGUAGES = ("en", "de", "fr", "es", "ru", "zh", "ja")
TOPICS = (
    "garden", "council", "sky", "kitchen", "history", "software", "health", "travel", "birds", "repair", "money",
)  # fmt: skip
_WITHOUT_SPACES = ("zh", "ja")


@functools.cache
def _grammar(language: str) -> Grammar:
    text = resources.files(__package__).joinpath("grammars", f"{language}.txt").read_text(encoding="utf-8")
    return read_grammar(text)


def phrase(template: str, choices: Choices, language: str = "en") -> str:
    """A text from a template in the notation of the grammars, such as "$product in $town"."""
    return expand(_grammar(language), template, choices)


def article(language: str, choices: Choices, num_paragraphs: int, topic: str = "") -> tuple[str, list[str]]:
    """The headline and the paragraphs of an article.

    Args:
        language: one of `LANGUAGES`.
        choices: the source of all choices.
        num_paragraphs: how many, at least 1.
        topic: one of `TOPICS`, for English; empty for any.
    """
    topic = topic or choices.pick(TOPICS)
    parts = [f"${topic}_title" if language == "en" else "$title"]
    for _ in range(num_paragraphs):
        sentences = [
            "$sentence" if language != "en" else "$general" if choices.happens(0.3) else f"${topic}"
            for _ in range(choices.whole(3, 5))
        ]
        parts.append(("" if language in _WITHOUT_SPACES else " ").join(f"{{{each}}}" for each in sentences))
    title, *paragraphs = phrase(" ¶ ".join(parts), choices, language).split("\n\n")
    return title, paragraphs
