"""The text the tiny base model learns from: arithmetic and markup, but no prompt, and no calculation in tags.

Each line is of one of these kinds:

    fact      7+8=15
    worked    7+8-9+2+6, and on the next line 7+8=15 15-9=6 6+2=8 8+6=14
    direct    7+8-9+2+6=14
    markup    <answer> 15 </answer>, with either tag around a number or a fact
"""

import random
from collections.abc import Iterator

from cs336_alignment.default_task.arithmetic import draw_chain
from cs336_alignment.default_task.tasks import NUM_TERMS, split_of

SHARES = {"fact": 15, "worked": 55, "direct": 15, "markup": 15}
"""Percent of the lines."""
TAGS = ("think", "answer")


def generate_lines(seed: int) -> Iterator[str]:
    """Endless lines; chains are problems of the training split only."""
    random_numbers = random.Random(seed)
    kinds, weights = list(SHARES), list(SHARES.values())
    while True:
        (kind,) = random_numbers.choices(kinds, weights)
        if kind in ("fact", "markup"):
            fact = draw_chain(random_numbers, (1,))
            text = f"{fact.text}={fact.result}"
            if kind == "markup":
                tag = random_numbers.choice(TAGS)
                text = f"<{tag}> {random_numbers.choice([text, fact.result])} </{tag}>"
            yield text + "\n"
            continue
        chain = draw_chain(random_numbers, NUM_TERMS)
        if split_of(chain.text) == "train":
            yield f"{chain.text}\n{chain.steps}\n" if kind == "worked" else f"{chain.text}={chain.result}\n"
