"""Write one of our tokenizers in the form that Hugging Face's `AutoTokenizer` opens."""

import json
import os
from pathlib import Path

from cs336_basics.atomic_file import atomic_write
from cs336_basics.bpe.vocab_files import byte_characters
from cs336_basics.command_line import UsageError
from cs336_basics.tokenizer import END_OF_TEXT, Tokenizer


def _printable(token: bytes) -> str:
    """The token's bytes in GPT-2's remapping."""
    character_of, _ = byte_characters()
    return "".join(character_of[byte] for byte in token)


def export_tokenizer(
    tokenizer_dir: str | os.PathLike, out_dir: str | os.PathLike, vocab_size: int, context_length: int
) -> int | None:
    """Write `tokenizer.json` and `tokenizer_config.json`.

    Args:
        tokenizer_dir: a folder a `Tokenizer` was saved to.
        out_dir: the folder to write to, made if it is missing.
        vocab_size: the number of ids the model knows.
        context_length: the longest text the model takes, in tokens.

    Returns:
        The id of <|endoftext|>, or None if the tokenizer has no such token.

    Raises:
        UsageError: the folder holds no tokenizer, or one with more ids than the model.
    """
    tokenizer = Tokenizer.from_directory(tokenizer_dir)
    if tokenizer.vocab_size > vocab_size:
        raise UsageError(
            f"the tokenizer in {tokenizer_dir} has {tokenizer.vocab_size} ids, but the model knows only {vocab_size}"
        )
    special = {token: tokenizer.encode(token)[0] for token in tokenizer.special_tokens}
    # A special token stands as its own text; every other token's bytes are shown as printable characters.
    vocab = {_printable(token): index for index, token in tokenizer.vocab.items() if index not in special.values()}
    vocab |= special
    if len(vocab) < len(tokenizer.vocab):
        raise UsageError(f"the tokenizer in {tokenizer_dir} has ids with equal bytes, which tokenizer.json cannot hold")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    settings = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token, index in sorted(special.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [[_printable(left), _printable(right)] for left, right in tokenizer.merges],
        },
    }
    end_of_text = END_OF_TEXT if END_OF_TEXT in special else None
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "eos_token": end_of_text,
        "pad_token": end_of_text,
    }
    for name, values in (("tokenizer.json", settings), ("tokenizer_config.json", config)):
        with atomic_write(Path(out_dir) / name, "w") as file:
            file.write(json.dumps(values, ensure_ascii=False, indent=1) + "\n")
    return tokenizer.eos_id
