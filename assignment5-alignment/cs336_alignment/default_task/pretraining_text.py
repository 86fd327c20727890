"""The text the tiny base model learns from: sums and differences, single and in chains, but no prompt and no tag."""

import random
from collections.abc import Iterator

from cs336_alignment.default_task.arithmetic import draw_chain
from cs336_alignment.default_task.tasks import NUM_TERMS, split_of

SHARE_FACTS, SHARE_WORKED = 0.4, 0.4
"""Of the lines that hold single facts, and of those that work a chain out; the rest name a chain's result at once."""


def generate_lines(seed: int) -> Iterator[str]:
    """Endless lines; chains are problems of the training split only."""
    random_numbers = random.Random(seed)
    while True:
        kind = random_numbers.random()
        if kind < SHARE_FACTS:
            chain = draw_chain(random_numbers, (1,))
            yield f"{chain.text}={chain.result}\n"
            continue
        chain = draw_chain(random_numbers, NUM_TERMS)
        if split_of(chain.text) != "train":
            continue
        if kind < SHARE_FACTS + SHARE_WORKED:
            yield f"{chain.text}\n{chain.steps}\n"
        else:
            yield f"{chain.text}={chain.result}\n"
