"""Finding out, token by token, whether a response's text holds a stop string.

A stop string may begin and end within tokens. Decoding each response anew at each step would take longer than a small
model's forward pass, so three tests follow each other, from the cheapest to the exact one: can the newest token hold a
stop string's last character at all; does the text of the last few tokens hold one; where does the whole text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_SLACK = 8
"""Tokens decoded before the longest stop string: a text's first characters may depend on what is before them."""


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The text of a response: all but special tokens, as they are."""
    return tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@dataclass(frozen=True)
class StopMatch:
    """A stop string in a response's text: characters `start` to `end` - 1."""

    start: int
    end: int


class StopStrings:
    """Finds the first stop string.

    Args:
        stop: the strings.
        tokenizer: decodes the response.
        vocab_size: number of token ids that the model can draw.
    """

    def __init__(self, stop: Sequence[str], tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
        self.stop = tuple(stop)
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._last_characters = {string[-1] for string in self.stop}
        # Text that ends in white space may lose it if decoded alone, so it tells nothing there.
        self._rules_out = bool(self.stop) and not any(character.isspace() for character in self._last_characters)
        self._window = max((len(string.encode()) for string in self.stop), default=0) + _SLACK
        self._is_known = np.zeros(vocab_size, dtype=bool)
        self._may_complete = np.full(vocab_size, bool(self.stop))

    def may_complete(self, token_ids: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
        """For each row's newest token, whether it may complete a stop string; false is certain."""
        if self._rules_out and not (known := self._is_known[token_ids]).all():
            for token_id in token_ids[~known]:
                text = decode(self._tokenizer, [token_id])
                # A character of several bytes may have begun in the token before.
                self._may_complete[token_id] = _INCOMPLETE in text or not self._last_characters.isdisjoint(text)
                self._is_known[token_id] = True
        return self._may_complete[token_ids]

    def find(self, token_ids: Sequence[int]) -> StopMatch | None:
        """The stop string that the last token completed; of several, the one that ends first, then the longest."""
        visible = [token_id for token_id in token_ids if token_id not in self._special]
        tail = decode(self._tokenizer, visible[-self._window :])  # a token that is not special has a byte at least
        if not any(string in tail for string in self.stop):
            return None
        text = decode(self._tokenizer, token_ids)
        before = len(decode(self._tokenizer, token_ids[:-1]).rstrip(_INCOMPLETE))
        starts = [(text.find(string, max(0, before + 1 - len(string))), string) for string in self.stop]
        matches = [StopMatch(start, start + len(string)) for start, string in starts if start >= 0]
        return min(matches, key=lambda match: (match.end, match.start), default=None)
