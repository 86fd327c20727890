"""How unsafe a text is by its terms, as a probability.

Each term adds its severity; an insult next to "you" adds one more. The sum is set against the length of the text, since
one oath in a tweet is another thing than one in a novel, and goes through a logistic function. Its two constants are
chosen by hand so that in a short text one term of severity 2 is enough (0.77), one of severity 1 is not (0.40), and in
a text of 1,000 words ten strong ones are (0.77).
"""

import math
from collections.abc import Collection, Sequence

from cs336_data.lexicon.matching import Match

NSFW_CATEGORIES = frozenset({"sexual", "obscene"})
TOXIC_CATEGORIES = frozenset({"obscene", "profane", "insult", "slur", "threat"})
_WORDS = 100
"""The number of words at which a term counts half."""
_SLOPE = 2.0
_OFFSET = 2.2


def unsafe_probability(matches: Sequence[Match], num_words: int, categories: Collection[str]) -> float:
    """The probability that a text is unsafe: 0.1 without any term, in (0, 1).

    Args:
        matches: the terms found in the text.
        num_words: the number of its words.
        categories: which terms count.
    """
    evidence = sum(match.term.severity + match.directed for match in matches if match.term.category in categories)
    density = evidence / (1 + num_words / _WORDS)
    return 1 / (1 + math.exp(_OFFSET - _SLOPE * min(density, 18.0)))  # 18: the result stays below 1
