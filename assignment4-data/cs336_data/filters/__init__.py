"""The filters by name. Each is a class with a `name` that decides about documents; see `cs336_data.document.Filter`.

    decide = make_filter("gopher", rules="paper")
    decision = decide(Document("A text."))

Modules are imported when a filter of theirs is made: a chain of rules loads no model library.
"""

from importlib import import_module
from inspect import signature
from typing import Any

from cs336_basics.command_line import UsageError
from cs336_data.document import Filter

FILTERS = {
    "url": "cs336_data.filters.url:UrlFilter",
    "language": "cs336_data.filters.language:LanguageFilter",
    "c4_lines": "cs336_data.filters.c4_lines:C4LinesFilter",
    "gopher": "cs336_data.filters.gopher:GopherFilter",
    "repetition": "cs336_data.filters.repetition:RepetitionFilter",
    "nsfw": "cs336_data.filters.nsfw:NsfwFilter",
    "toxic": "cs336_data.filters.toxic:ToxicSpeechFilter",
    "quality": "cs336_data.filters.quality:QualityFilter",
    "perplexity": "cs336_data.filters.perplexity:PerplexityFilter",
    "importance": "cs336_data.filters.importance:ImportanceFilter",
    "pii": "cs336_data.filters.pii:PersonalDataFilter",
}
"""Where each filter's class is: module and name."""

DEFAULT_CHAIN = ("language", "c4_lines", "gopher", "repetition", "nsfw", "toxic", "pii")
"""Cheap and severe filters first; lines that are no prose go before words are counted; masks last, on what is kept."""


def make_filter(name: str, **options: Any) -> Filter:
    """The filter of a name.

    Args:
        name: one of `FILTERS`.
        options: what its class takes.

    Raises:
        UsageError: the name is unknown, or an option is unknown or out of range.
    """
    if name not in FILTERS:
        raise UsageError(f"filter {name!r} is unknown: it must be one of {', '.join(FILTERS)}")
    module, _, class_name = FILTERS[name].partition(":")
    factory = getattr(import_module(module), class_name)
    allowed = signature(factory).parameters
    for option in options:
        if option not in allowed:
            raise UsageError(f"filter {name} has no option {option!r}: it has {', '.join(allowed) or 'none'}")
    try:
        return factory(**options)
    except TypeError:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        wanted = ", ".join(str(allowed[option]) for option in options)
        raise UsageError(f"filter {name} cannot take {given}: it has {wanted}") from None
