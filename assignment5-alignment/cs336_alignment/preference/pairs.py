"""A pair of responses to one prompt, as text and as tokens."""

from dataclasses import dataclass, replace
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from cs336_alignment.prompts import alpaca_prompt


@dataclass(frozen=True)
class PreferencePair:
    """Two responses to one prompt, the first preferred.

    Attributes:
        prompt: what both responses continue.
        chosen, rejected: the responses.
        source: the file that the pair came from; empty if it was made.
    """

    prompt: str
    chosen: str
    rejected: str
    source: str = ""


@dataclass(frozen=True)
class EncodedPair:
    """A pair as token ids.

    Attributes:
        chosen, rejected: prompt and response, ended by EOS.
        response_start: index of the first token of the responses. The tokens before it are the prompt's, the same in
            both; where a tokenizer merges the prompt's end with a response's beginning, it lies before that token.
        source: of the pair.
    """

    chosen: list[int]
    rejected: list[int]
    response_start: int
    source: str = ""

    @property
    def length(self) -> int:
        """Tokens of the longer of the two."""
        return max(len(self.chosen), len(self.rejected))


def alpaca_pair(pair: PreferencePair) -> PreferencePair:
    """The pair with its bare instruction put into the Alpaca template, up to where the response begins."""
    return replace(pair, prompt=alpaca_prompt(pair.prompt))


def encode_pair(tokenizer: PreTrainedTokenizerBase, pair: PreferencePair) -> EncodedPair:
    """Tokenize prompt and response as one text, with the special tokens the tokenizer adds, and end both by EOS."""
    prompt = tokenizer(pair.prompt)["input_ids"]
    chosen, rejected = (encode_response(tokenizer, pair.prompt, text) for text in (pair.chosen, pair.rejected))
    in_step = takewhile(lambda tokens: len(set(tokens)) == 1, zip(prompt, chosen, rejected, strict=False))
    return EncodedPair(chosen, rejected, len(list(in_step)), pair.source)


def encode_response(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> list[int]:
    """The token ids of prompt and response, ended by one EOS."""
    ids = list(tokenizer(prompt + response)["input_ids"])
    return ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]
