"""A lexicon of unsafe words that needs no download, and finds them masked.

    from cs336_data.lexicon import find_terms

Content warning: `terms.txt` in this folder lists obscenities, insults and slurs.
"""

from cs336_data.lexicon.matching import Match, count_words, find_terms
from cs336_data.lexicon.scoring import NSFW_CATEGORIES, TOXIC_CATEGORIES, unsafe_probability

__all__ = ["NSFW_CATEGORIES", "TOXIC_CATEGORIES", "Match", "count_words", "find_terms", "unsafe_probability"]
