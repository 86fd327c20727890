"""What tells an encyclopedia's page from a shop's, a forum's or a menu: fifteen statistics of English text.

They are shares and rates, so that a long page and its first half look alike, and each is read at a glance; the weights
that make a probability of them are fitted (`quality_training.py`). Many go back to C4 (Raffel et al. 2020), Gopher (Rae
et al. 2021) and RefinedWeb (Penedo et al. 2023); the rest say how writers of reference works write.
"""

import math
import re
from collections import Counter

import numpy as np
from jaxtyping import Float64

from cs336_data.words import lines_of, words_of

MAX_CHARACTERS = 50_000
"""The beginning of a text is enough to judge it by."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _words(
    """the of and in to a an is was were are be been by for with as on at from that which this these it its their his
    her or not but had has have who whom whose during between among after before when where while than such also into
    through under over within"""
)
ADDRESSING_WORDS = _words(
    """i me my mine we us our ours you your yours i'm i've i'll i'd we're we've we'll you're you've you'll don't can't
    let's please"""
)
SCHOLARLY_WORDS = _words(
    """century university professor journal theory philosopher philosophy scholars historian according published edition
    references bibliography isbn pp vol ed eds et al cf ibid e.g i.e hence therefore thus however although whereas
    moreover furthermore concept principle argued argues known named established founded species population battle
    empire government"""
)
PAST = re.compile(r"\b(?:was|were|had|became|began|\w{3,}ed)\b", re.IGNORECASE)
SITE_PHRASES = re.compile(
    r"""\b(?:click\ here|log\s?(?:in|out)|sign\ (?:in|up)|register(?:ed)?|my\ account|add\ to\ (?:cart|basket|wishlist)|
    shopping\ (?:cart|bag)|check\s?out|free\ shipping|in\ stock|out\ of\ stock|buy\ now|order\ now|best\ price|on\ sale|
    privacy\ policy|terms\ (?:of|and)\ (?:use|service|conditions?)|cookies?|all\ rights\ reserved|copyright|
    contact\ us|about\ us|site\s?map|home\ ?page|main\ menu|skip\ to|subscribe|newsletter|read\ more|learn\ more|
    view\ (?:all|more|profile|cart)|share\ (?:this|on)|follow\ us|like\ us|leave\ a\ (?:reply|comment)|
    (?:post|add)\ (?:a\ )?(?:reply|comment)|repl(?:y|ies)|comments?|posted\ (?:by|on|in|at)|joined|posts|topics?|
    forums?|threads?|board\ index|faq|powered\ by|next|previous|back\ to\ top|download|username|password|e-?mail|
    related\ (?:posts|products)|tags?|categories|archives?|advertis\w+|sponsored|website|online|blog|
    moderators?|administrators?|members?|customers?|quote|search)\b""",
    re.IGNORECASE | re.VERBOSE,
)
ADDRESSES_AND_PRICES = re.compile(r"https?:|www\.|\S@\S|\.(?:com|net|org)\b|[$€£]\s?\d|\d\s?%\s?off", re.IGNORECASE)
YEARS = re.compile(r"\b(?:1[0-9]|20)\d\d\b")
CITATIONS = re.compile(r"\[\d+\]|\((?:[^()]{0,60}\b)?\d{4}[a-z]?(?:[:,][^()]{0,20})?\)|\bpp?\.\s?\d|[–—]\s?\d{2,4}\b")
SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?:\s|$)")

NAMES = (
    "words_log10",
    "function_words",
    "addressing_words",
    "scholarly_words",
    "past_tense",
    "words_per_sentence_log2",
    "prose_lines",
    "short_lines",
    "repeated_lines",
    "commas",
    "exclamations_and_questions",
    "years",
    "citations",
    "site_phrases",
    "addresses_and_prices",
)


def quality_statistics(text: str) -> Float64[np.ndarray, "statistics"]:
    """The statistics of a text, in the order of `NAMES`; all 0 for a text without words.

    - words_log10: logarithm of the number of words, up to that of 2,000;
    - function_words, addressing_words, scholarly_words: shares of the words, of this kind;
    - past_tense, commas, exclamations_and_questions, years, citations, site_phrases, addresses_and_prices: per word;
    - words_per_sentence_log2: logarithm of the mean, up to that of 64;
    - prose_lines: share of the characters that stand in lines of ten words and more that end like a sentence;
    - short_lines: share of the characters that stand in lines of fewer than five words;
    - repeated_lines: share of the lines that occur before.
    """
    text = text[:MAX_CHARACTERS]
    words = words_of(text)
    if not words:
        return np.zeros(len(NAMES))
    num_words = len(words)
    lower = Counter(word.lower().replace("’", "'") for word in words)

    def share(kind: frozenset[str]) -> float:
        return sum(lower[word] for word in kind) / num_words

    def rate(pattern: re.Pattern[str]) -> float:
        return sum(1 for _ in pattern.finditer(text)) / num_words

    lines = [line.text for line in lines_of(text)]
    lengths = [line.count(" ") + 1 for line in lines]
    characters = sum(map(len, lines))
    prose = sum(
        len(line)
        for line, length in zip(lines, lengths, strict=True)
        if length >= 10 and SENTENCE_END.search(line[-3:])
    )
    short = sum(len(line) for line, length in zip(lines, lengths, strict=True) if length < 5)
    sentences = max(sum(1 for _ in SENTENCE_END.finditer(text)), 1)
    return np.array(
        [
            math.log10(min(num_words, 2000)),
            share(FUNCTION_WORDS),
            share(ADDRESSING_WORDS),
            share(SCHOLARLY_WORDS),
            rate(PAST),
            math.log2(min(num_words / sentences, 64.0)) if num_words > sentences else 0.0,
            prose / characters,
            short / characters,
            1 - len(set(lines)) / len(lines),
            text.count(",") / num_words,
            (text.count("!") + text.count("?")) / num_words,
            rate(YEARS),
            rate(CITATIONS),
            rate(SITE_PHRASES),
            rate(ADDRESSES_AND_PRICES),
        ]
    )
