"""The quickstart's text: generated, or the user's own, split into a training and a validation part."""

import codecs
from dataclasses import dataclass
from pathlib import Path

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.stories import END_OF_TEXT, generate_stories, write_stories

LEAST_BYTES = 2_000
BYTES_PER_MINUTE = 2_000_000
"""Of text to use: more than a small model can read in a minute, little enough to be tokenized in seconds."""
VALID_SHARE, MOST_VALID_BYTES = 0.1, 400_000
BEGINNING = 160
"""Characters of the text that are shown."""
LONGEST_PROMPT = 40
"""Characters: Chinese, say, has no spaces that would end a word."""
STORY_BEGINNINGS = ("Once upon a time", "One sunny day", "Long ago, a little fox")


@dataclass(frozen=True)
class Texts:
    """The two parts, and what to tell about them."""

    train: Path
    valid: Path
    train_bytes: int
    valid_bytes: int
    beginning: str
    prompts: tuple[str, ...]
    """Beginnings to continue."""
    note: str


def write_default_text(folder: Path, minutes: float, seed: int) -> Texts:
    """Stories for a run of so many minutes; the validation part has stories of its own."""
    train, valid = folder / "train.txt", folder / "valid.txt"
    num_bytes = int(min(minutes, 5) * BYTES_PER_MINUTE)
    # An even and an odd seed: no run's validation stories are another part's training stories.
    write_stories(train, num_bytes, seed=2 * seed)
    write_stories(valid, max(LEAST_BYTES, min(MOST_VALID_BYTES, num_bytes // 20)), seed=2 * seed + 1)
    first = next(generate_stories(2 * seed))
    return _texts(train, valid, first, STORY_BEGINNINGS, "generated stories")


def split_text(path: Path, folder: Path, minutes: float) -> Texts:
    """Split the user's text: the last tenth, cut at the end of a document, line or word, is for validation.

    Args:
        path: a UTF-8 text, with or without `<|endoftext|>` between documents.
        folder: where the parts are written.
        minutes: of the whole run; of a large file only the beginning is used, as much as fits into the time.

    Raises:
        UsageError: it is no UTF-8, or too short.
    """
    size, most = path.stat().st_size, _most_bytes(minutes)
    text = read_text(path, minutes)
    cut = _border(text, int(len(text) * (1 - min(VALID_SHARE, MOST_VALID_BYTES / len(text)))))
    train, valid = folder / "train.txt", folder / "valid.txt"
    for part, target in ((text[:cut], train), (text[cut:], valid)):
        with atomic_write(target) as file:
            file.write(part.encode())
    note = f"{size / 1e6:.2f} MB"
    if size > most:
        note += f", of which the first {most / 1e6:.0f} MB are used in this short time"
    if END_OF_TEXT in text:
        note += f", {text.count(END_OF_TEXT):,} documents ended by {END_OF_TEXT}"
    return _texts(train, valid, text.lstrip(), _prompts(text[cut:]), note)


def read_text(path: Path, minutes: float) -> str:
    """As much of the user's text as fits into a run of so many minutes.

    Raises:
        UsageError: it is no UTF-8, or too short.
    """
    size, most = path.stat().st_size, _most_bytes(minutes)
    with open(path, "rb") as file:
        content = file.read(most).removeprefix(codecs.BOM_UTF8)
    text = _decoded(content, path, is_whole=size <= most)
    if len(text.encode()) < LEAST_BYTES:
        raise UsageError(f"{path} has {size:,} bytes; a text to learn from needs at least {LEAST_BYTES:,}")
    return text


def _most_bytes(minutes: float) -> int:
    return int(max(1, min(minutes, 10)) * BYTES_PER_MINUTE)


def _decoded(content: bytes, path: Path, is_whole: bool) -> str:
    try:
        # Of a file that was cut, an unfinished last character is no error.
        return codecs.getincrementaldecoder("utf-8")().decode(content, final=is_whole)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: byte {error.start:,} is 0x{content[error.start]:02x}") from None


def _border(text: str, near: int) -> int:
    """The end of a document, paragraph, line or word just before `near`, whichever of them is close enough."""
    for mark in (END_OF_TEXT, "\n\n", "\n", " "):
        at = text.rfind(mark, near // 2, near)
        if at > near * 0.9:
            return at + len(mark)
    return near


def _prompts(text: str) -> tuple[str, ...]:
    """The beginnings of a few passages from the validation part."""
    text = text.replace(END_OF_TEXT, "\n\n")
    passages = [passage for passage in text.split("\n\n") if len(passage.strip()) > LONGEST_PROMPT]
    step = max(1, len(passages) // 3)
    chosen = passages[::step][:3] or [text]
    return tuple(" ".join(passage.split()[:4])[:LONGEST_PROMPT] for passage in chosen)


def _texts(train: Path, valid: Path, text: str, prompts: tuple[str, ...], note: str) -> Texts:
    beginning = " ".join(text[: 2 * BEGINNING].split())[:BEGINNING] + " ..."
    return Texts(train, valid, train.stat().st_size, valid.stat().st_size, beginning, prompts, note)
