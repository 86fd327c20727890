"""The fast path of byte-pair encoding: numpy arrays and numba kernels, results identical to the plain path.

Read in this order:

- `jit`: how kernels are compiled, where the machine code is cached, and the line that announces the compilation;
- `bits`: eight bytes as one number, 64 bytes as bitmaps;
- `specials`: special tokens as arrays, and where they occur in a text;
- `pretokens`: where GPT-2's pre-tokenizer begins a new pre-token, as a bitmap, 64 bytes at a time;
- `chunks`: a block's pre-tokens, chunk by chunk;
- `utf8`: what happens to malformed UTF-8;
- `blocks`: a file of any size as blocks of a few megabytes;
- `word_table`: a hash table from pre-tokens to numbers, without Python objects;
- `counting`: how often each pre-token occurs in a file, with threads;
- `pair_order`: which of two pairs is merged first;
- `pair_table`: the words as cells, the pairs with their counts and occurrences;
- `merging`: the merges, from the counts;
- `training`: `train_bpe_fast`, all of the above together;
- `merge_ranks`: the merges of one pre-token when encoding;
- `encoding`: `FastEncoder`.

`train_bpe_fast` and `FastEncoder` can be imported from here. numba is imported when one of them first is:
`import cs336_basics.bpe.fast` alone costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .encoding import FastEncoder
    from .training import train_bpe_fast

__all__ = ["FastEncoder", "train_bpe_fast"]


def __getattr__(name: str) -> Any:
    if name == "FastEncoder":
        from .encoding import FastEncoder

        return FastEncoder
    if name == "train_bpe_fast":
        from .training import train_bpe_fast

        return train_bpe_fast
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
