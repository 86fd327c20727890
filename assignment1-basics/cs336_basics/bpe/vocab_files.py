"""Vocabularies on disk: GPT-2's two files, which every library reads, and our own, which knows when it is damaged.

GPT-2's form is `vocab.json` (token -> id) and `merges.txt` (one merge a line, two tokens with a space between). Both
are text, so each of the 256 bytes is written as one printable character: itself where Latin-1 has it printable, else a
character from U+0100 on. `Ġ` is the space, `Ċ` the newline.

Our form is `bpe.json`: tokens in hexadecimal, special tokens by name, and a SHA-256 of the whole.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cs336_basics.atomic_file import atomic_write
from cs336_basics.bpe.pretokenize import GPT2_PATTERN, check_special_tokens
from cs336_basics.command_line import UsageError

Vocab = dict[int, bytes]
Merges = list[tuple[bytes, bytes]]

VOCAB_FILE, MERGES_FILE, OWN_FILE = "vocab.json", "merges.txt", "bpe.json"
FORMAT, VERSION = "cs336-byte-level-bpe", 1

_HEADER = "#version: 0.2"
_NUM_MERGES = re.compile(r" - (\d+) merges")


@cache
def byte_characters() -> tuple[dict[int, str], dict[str, int]]:
    """GPT-2's remapping: byte -> printable character, and back."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    character_of = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return character_of, {character: byte for byte, character in character_of.items()}


# ---- a folder with both forms ---------------------------------------------------------------------------------------


def save_directory(
    directory: str | os.PathLike,
    vocab: Mapping[int, bytes],
    merges: Sequence[tuple[bytes, bytes]],
    special_tokens: Sequence[str],
) -> None:
    """Write `vocab.json`, `merges.txt` and `bpe.json` into a folder, which is made if it is missing.

    The old `bpe.json` goes first and the new one comes last: were the program killed between, an old one would be read
    before the new files beside it.

    Raises:
        UsageError: two ids have the same bytes, which GPT-2's form cannot hold (`save_own_file` can).
    """
    folder = Path(directory)
    contents = _gpt2_contents(vocab, merges, special_tokens)
    (folder / OWN_FILE).unlink(missing_ok=True)
    _write_gpt2_files(folder / VOCAB_FILE, folder / MERGES_FILE, *contents)
    save_own_file(folder / OWN_FILE, vocab, merges, special_tokens)


def load_directory(directory: str | os.PathLike) -> tuple[Vocab, Merges, list[str]]:
    """Read a folder: `bpe.json` or, where there is none, GPT-2's two files.

    In the latter case every token that no merge makes is taken for a special token.

    Returns:
        The vocabulary, the merges and the special tokens.

    Raises:
        UsageError: the folder has neither, or its files are damaged.
    """
    folder = Path(directory)
    if (folder / OWN_FILE).is_file():
        return load_own_file(folder / OWN_FILE)
    if not (folder / VOCAB_FILE).is_file():
        raise UsageError(
            f"{folder} holds no tokenizer: neither {OWN_FILE} nor {VOCAB_FILE} and {MERGES_FILE} are there"
        )
    vocab, merges = load_gpt2_files(folder / VOCAB_FILE, folder / MERGES_FILE)
    return (
        vocab,
        merges,
        [vocab[token_id].decode(errors="replace") for token_id in sorted(_ids_no_merge_makes(vocab, merges))],
    )


# ---- GPT-2's form ---------------------------------------------------------------------------------------------------


def save_gpt2_files(
    vocab_path: str | os.PathLike,
    merges_path: str | os.PathLike,
    vocab: Mapping[int, bytes],
    merges: Sequence[tuple[bytes, bytes]],
    special_tokens: Sequence[str] = (),
) -> None:
    """Write a vocabulary as GPT-2's `vocab.json` and `merges.txt`.

    The first line of the merges, which all readers skip, also says how many there are.

    Raises:
        UsageError: two ids have the same bytes, which this form cannot hold.
    """
    _write_gpt2_files(vocab_path, merges_path, *_gpt2_contents(vocab, merges, special_tokens))


def _gpt2_contents(
    vocab: Mapping[int, bytes], merges: Sequence[tuple[bytes, bytes]], special_tokens: Sequence[str]
) -> tuple[str, str]:
    """What `vocab.json` and `merges.txt` hold."""
    written_special = {token.encode(): _special_as_text(token) for token in special_tokens}
    id_of: dict[str, int] = {}
    for token_id, token in sorted(vocab.items()):
        text = written_special.get(token) or _bytes_as_text(token)
        if text in id_of:
            raise UsageError(f"GPT-2's form cannot hold ids {id_of[text]} and {token_id}: both are {token!r}")
        id_of[text] = token_id
    lines = [f"{_HEADER} - {len(merges)} merges"]
    lines += [f"{_bytes_as_text(left)} {_bytes_as_text(right)}" for left, right in merges]
    return json.dumps(id_of, ensure_ascii=False), "\n".join(lines) + "\n"


def _write_gpt2_files(
    vocab_path: str | os.PathLike, merges_path: str | os.PathLike, vocab_content: str, merges_content: str
) -> None:
    for path, content in ((vocab_path, vocab_content), (merges_path, merges_content)):
        with atomic_write(path, "w") as file:
            file.write(content)


def load_gpt2_files(
    vocab_path: str | os.PathLike, merges_path: str | os.PathLike, special_tokens: Iterable[str] = ()
) -> tuple[Vocab, Merges]:
    """Read a vocabulary from GPT-2's `vocab.json` and `merges.txt`.

    Args:
        vocab_path: token -> id.
        merges_path: one merge a line; a first line that begins with `#version` is no merge.
        special_tokens: tokens that no merge needs to make. Tokens that look special (`<...>` or `[...]`) need not be
            named here.

    Raises:
        UsageError: a file is missing, cut short, or in another form.
    """
    special_tokens = check_special_tokens(special_tokens)
    vocab = _parse_vocab(vocab_path, special_tokens)
    merges = _parse_merges(merges_path)
    tokens = set(vocab.values())
    for number, (left, right) in enumerate(merges, start=1):
        for token in (left, right, left + right):
            if token not in tokens:
                raise UsageError(
                    f"{merges_path} and {vocab_path} do not belong together: merge {number} needs {token!r}, "
                    "which is not in the vocabulary"
                )
    named = {token.encode() for token in special_tokens}
    for token_id in sorted(_ids_no_merge_makes(vocab, merges)):
        token = vocab[token_id]
        if token not in named and not re.fullmatch(rb"<.*>|\[.*\]", token, re.DOTALL):
            raise UsageError(
                f"{merges_path} lacks the merge that makes token {token_id} of {vocab_path}, {token!r}: it is cut "
                "short, or this is a special token that was not named"
            )
    return vocab, merges


def _parse_vocab(path: str | os.PathLike, special_tokens: list[str]) -> Vocab:
    content = _read_json(path)
    if not isinstance(content, dict) or not all(isinstance(token_id, int) for token_id in content.values()):
        raise UsageError(f"{path} is not a GPT-2 vocabulary: it must be one JSON object, token -> id")
    special = {_special_as_text(token): token.encode() for token in special_tokens}
    vocab: Vocab = {}
    for text, token_id in sorted(content.items(), key=lambda item: item[1]):
        if token_id in vocab or token_id < 0:
            raise UsageError(f"{path} is not a GPT-2 vocabulary: id {token_id} is negative or given to two tokens")
        vocab[token_id] = special.get(text) or _text_as_bytes(text)
    return vocab


def _parse_merges(path: str | os.PathLike) -> Merges:
    # Not splitlines(): it also splits at characters that are no line ends here.
    lines = _read_text(path).replace("\r\n", "\n").split("\n")
    cut_short = lines[-1] != ""
    header = lines.pop(0) if lines[0].startswith("#version") else ""
    _, back = byte_characters()
    merges: Merges = []
    for number, line in enumerate(lines, start=2 if header else 1):
        if not line:
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts) or not all(character in back for character in parts[0] + parts[1]):
            hint = "the file is cut short there" if cut_short and number >= len(lines) else "this is another form"
            raise UsageError(f"{path}, line {number}: {line[:60]!r} is not two tokens with a space between; {hint}")
        merges.append((_text_as_bytes(parts[0]), _text_as_bytes(parts[1])))
    announced = _NUM_MERGES.search(header)
    if announced and int(announced[1]) != len(merges):
        raise UsageError(f"{path} is cut short: it announces {announced[1]} merges and holds {len(merges)}")
    return merges


def _bytes_as_text(token: bytes) -> str:
    character_of, _ = byte_characters()
    return "".join([character_of[byte] for byte in token])


def _special_as_text(token: str) -> str:
    """As itself, which is how other libraries look for it, unless it would then be read back as other bytes."""
    return token if _text_as_bytes(token) == token.encode() else _bytes_as_text(token.encode())


def _text_as_bytes(text: str) -> bytes:
    _, back = byte_characters()
    try:
        return bytes([back[character] for character in text])
    except KeyError:
        return text.encode(errors="replace")  # a special token as itself, with a space for instance


def _ids_no_merge_makes(vocab: Mapping[int, bytes], merges: Iterable[tuple[bytes, bytes]]) -> set[int]:
    made = {left + right for left, right in merges}
    return {token_id for token_id, token in vocab.items() if len(token) > 1 and token not in made}


# ---- our form -------------------------------------------------------------------------------------------------------


def fingerprint(
    vocab: Mapping[int, bytes], merges: Iterable[tuple[bytes, bytes]], special_tokens: Iterable[str]
) -> str:
    """The SHA-256 of a tokenizer's content, in hexadecimal: equal exactly for equal tokenizers."""
    return _checksum(_content(vocab, merges, special_tokens))


def save_own_file(
    path: str | os.PathLike,
    vocab: Mapping[int, bytes],
    merges: Iterable[tuple[bytes, bytes]],
    special_tokens: Iterable[str],
) -> None:
    """Write a tokenizer as one JSON file with a version and a checksum."""
    content = _content(vocab, merges, special_tokens)
    with atomic_write(path, "w") as file:
        json.dump(content | {"sha256": _checksum(content)}, file, indent=0)


def load_own_file(path: str | os.PathLike) -> tuple[Vocab, Merges, list[str]]:
    """Read what `save_own_file` wrote.

    Returns:
        The vocabulary, the merges and the special tokens.

    Raises:
        UsageError: the file is missing, cut short, changed, of a later version or in another form.
    """
    content = _read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f'{path} is not a tokenizer of this project: it lacks "format": "{FORMAT}"')
    if content.get("version") != VERSION:
        raise UsageError(f"{path} is of version {content.get('version')!r}; this program reads version {VERSION}")
    if content.pop("sha256", None) != _checksum(content):
        raise UsageError(f"{path} is damaged: its content does not fit its checksum")
    vocab = {int(token_id): bytes.fromhex(token) for token_id, token in content["vocab"].items()}
    merges = [(bytes.fromhex(left), bytes.fromhex(right)) for left, right in map(str.split, content["merges"])]
    return vocab, merges, content["special_tokens"]


def _content(
    vocab: Mapping[int, bytes], merges: Iterable[tuple[bytes, bytes]], special_tokens: Iterable[str]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "pattern": GPT2_PATTERN,
        "special_tokens": list(special_tokens),
        "vocab": {str(token_id): vocab[token_id].hex() for token_id in sorted(vocab)},
        "merges": [f"{left.hex()} {right.hex()}" for left, right in merges],
    }


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# ---- other libraries ------------------------------------------------------------------------------------------------


def tiktoken_arguments(
    vocab: Mapping[int, bytes], merges: Sequence[tuple[bytes, bytes]], special_tokens: Sequence[str]
) -> dict[str, Any]:
    """What `tiktoken.Encoding(name, **arguments)` needs: `pat_str`, `mergeable_ranks` and `special_tokens`.

    Raises:
        UsageError: the ids do not rise with the merges. tiktoken takes a token's id for the rank of its merge.
    """
    # Of two ids with the same bytes a special token has the higher, as in `Tokenizer`.
    highest = {token: token_id for token_id, token in sorted(vocab.items())}
    special_ids = {token: highest[token.encode()] for token in special_tokens}
    special = set(special_ids.values())
    ranks = {token: token_id for token_id, token in sorted(vocab.items(), reverse=True) if token_id not in special}
    made = [ranks[left + right] for left, right in merges]
    if made != sorted(made):
        raise UsageError(
            "tiktoken cannot use this vocabulary: the ids of its tokens are not in the order of the merges"
        )
    return {"pat_str": GPT2_PATTERN, "mergeable_ranks": ranks, "special_tokens": special_ids}


def _read_text(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a vocabulary file: it is not UTF-8 text") from None


def _read_json(path: str | os.PathLike) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is cut short or not JSON: {error}") from None
