"""Simple English stories from a seed: text to train on where nothing can be downloaded.

The stories are in the spirit of TinyStories (Eldan and Li, 2023, arXiv:2305.07759): everyday words, a hero, a wish or
a trouble, and an end. A context-free grammar with a memory (`story_grammar.txt`, where its notation is explained)
writes them: one of twenty plots, each a row of scenes, each scene one of several sentences full of choices. What a
story has chosen once, such as its hero's name and pronouns, it keeps to its end.

The same seed gives the same text on every machine: only `random.Random.random` is used, whose sequence Python
promises to keep, and nothing depends on the order of a set or a hash.
"""

import functools
import os
import random
import re
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple, TypeAlias

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError

END_OF_TEXT = "<|endoftext|>"
MIN_WORDS, MAX_WORDS = 80, 300

# What an alternative consists of: literal text (str) and the three kinds of parts below, in a row.
_Sequence: TypeAlias = "tuple[str | _Choice | _Fresh | _Remembered, ...]"


class _Choice(NamedTuple):
    """{a|b|c}: one of several sequences, here and now."""

    options: tuple[_Sequence, ...]


class _Fresh(NamedTuple):
    """$rule: a new choice from a rule; `mark` is written before it ("^" asks for a capital)."""

    rule: str
    mark: str


class _Remembered(NamedTuple):
    """<rule.form>: the story's own choice from a rule, made at its first use; `key` is "rule" or "rule.form"."""

    rule: str
    key: str
    mark: str


class _Rule(NamedTuple):
    keys: tuple[str, ...]  # what the forms of an alternative are remembered as, such as ("hero", "hero.his")
    alternatives: list[tuple[_Sequence, ...]]  # for each alternative one sequence per form


_HEADER = re.compile(r"(\w+)(?:\(\w+([\w ]*)\))?(, \|)?:$")
_TOKEN = re.compile(r"[{}|]|\$(?P<fresh>\w+)|<(?P<remembered>\w+)(?P<form>\.\w+)?>")
_ARTICLE = re.compile(r'@ (?="?(\w+))')
_CAPITAL = re.compile(r'\^"?[a-z]|(?<=[.!?] )"?[a-z]')
_SOUNDS_LIKE_A_CONSONANT = ("one", "uni", "use")  # a unicorn, though it is written with a vowel
_SOUNDS_LIKE_A_VOWEL = ("honest", "hour")


def _parse_options(text: str, start: int = 0) -> tuple[list[_Sequence], int]:
    """The options of "a|b|c" from `start` up to the brace that closes them or the end, and where that is."""
    options: list[_Sequence] = []
    sequence: list[str | _Choice | _Fresh | _Remembered] = []
    while True:
        token = _TOKEN.search(text, start)
        end = token.start() if token else len(text)
        if start < end:
            sequence.append(text[start:end])
        if token is None or token[0] == "}":
            return [*options, tuple(sequence)], end
        start = token.end()
        if token[0] == "|":
            options.append(tuple(sequence))
            sequence = []
        elif token[0] == "{":
            inner, end = _parse_options(text, start)
            sequence.append(_Choice(tuple(inner)))
            start = end + 1
        else:
            name = token["fresh"] or token["remembered"]
            rule, mark = name[0].lower() + name[1:], "^" if name[0].isupper() else ""
            sequence.append(
                _Fresh(rule, mark) if token["fresh"] else _Remembered(rule, rule + (token["form"] or ""), mark)
            )


Grammar: TypeAlias = "dict[str, _Rule]"


def read_grammar(text: str) -> Grammar:
    """The rules by name, from a grammar in the notation that `story_grammar.txt` explains."""
    rules: Grammar = {}
    rule, many_in_a_line = _Rule((), []), False
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, forms, many_in_a_line = header[1], (header[2] or "").split(), bool(header[3])
            rule = rules[name] = _Rule((name, *(f"{name}.{form}" for form in forms)), [])
        elif line.startswith("  ") and many_in_a_line:
            rule.alternatives.extend((option,) for option in _parse_options(line.strip())[0])
        elif line.startswith("  "):
            forms = line[2:].split("/")
            rule.alternatives.append(tuple((_Choice(tuple(_parse_options(form)[0])),) for form in forms))
    return rules


@functools.cache
def _story_grammar() -> Grammar:
    return read_grammar(resources.files(__package__).joinpath("story_grammar.txt").read_text(encoding="utf-8"))


class _Story:
    """The writing of one story: what it remembers and what it has used."""

    def __init__(self, grammar: Grammar, rng: random.Random) -> None:
        self._random = rng.random
        self._rules = grammar
        self._memory: dict[str, str] = {}
        self._used: dict[str, set[int]] = {}

    def _pick(self, name: str) -> tuple[_Sequence, ...]:
        """An alternative of the rule that this story has not used yet (when all were used, any)."""
        alternatives = self._rules[name].alternatives
        used = self._used.setdefault(name, set())
        if len(used) == len(alternatives):
            used.clear()
        index = int(self._random() * len(alternatives))
        while index in used:
            index = (index + 1) % len(alternatives)
        used.add(index)
        return alternatives[index]

    def write(self, sequence: _Sequence, out: list[str]) -> None:
        """Append the pieces of text that `sequence` stands for to `out`."""
        for part in sequence:
            if part.__class__ is str:
                out.append(part)
            elif part.__class__ is _Choice:
                options = part.options
                self.write(options[int(self._random() * len(options))], out)
            elif part.__class__ is _Fresh:
                out.append(part.mark)
                self.write(self._pick(part.rule)[0], out)
            else:
                if part.key not in self._memory:
                    self._remember(part.rule)
                out.append(part.mark)
                out.append(self._memory[part.key])

    def _remember(self, name: str) -> None:
        for key, form in zip(self._rules[name].keys, self._pick(name), strict=True):
            pieces: list[str] = []
            self.write(form, pieces)
            self._memory[key] = "".join(pieces)


def _article(match: re.Match) -> str:
    word = match[1].lower()
    vowel = word[0] in "aeiou" and not word.startswith(_SOUNDS_LIKE_A_CONSONANT)
    return "an " if vowel or word.startswith(_SOUNDS_LIKE_A_VOWEL) else "a "


def _tidy(text: str) -> str:
    """Choose a or an, set the capitals, and drop the spaces that options left empty leave behind."""
    text = _ARTICLE.sub(_article, text)
    text = _CAPITAL.sub(lambda match: match[0].upper(), "^" + text.replace("¶ ", "¶^"))
    for old, new in (("^", ""), ("  ", " "), (" ¶", "\n\n"), ("¶", "\n\n")):
        text = text.replace(old, new)
    return text.strip()


def expand(grammar: Grammar, template: str, rng: random.Random) -> str:
    """One text from a template in the grammar's notation, such as "$greeting ¶ $story"; `rng` is advanced."""
    (sequence,), out = _parse_options(template)[0], []
    _Story(grammar, rng).write(sequence, out)
    return _tidy("".join(out))


def generate_story(rng: random.Random) -> str:
    """One story of 80 to 300 words, in paragraphs separated by an empty line.

    Args:
        rng: the source of all choices; it is advanced.

    Returns:
        The story, without a final newline or end-of-text mark.
    """
    while True:
        story = expand(_story_grammar(), "$story", rng)
        if MIN_WORDS <= len(story.split()) <= MAX_WORDS:
            return story


def generate_stories(seed: int) -> Iterator[str]:
    """Stories without end.

    Args:
        seed: 0 or more; the same seed gives the same stories, another seed gives others.

    Raises:
        UsageError: the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"seed {seed} is negative; stories need a seed of 0 or more")
    rng = random.Random(seed)
    while True:
        yield generate_story(rng)


def write_stories(path: str | os.PathLike, num_bytes: int, seed: int) -> int:
    """Write whole stories, each followed by an `<|endoftext|>` line, until the file holds `num_bytes` or just above.

    The file appears only when it is complete.

    Args:
        path: the file to write (UTF-8; its folder is made if it is missing).
        num_bytes: the least size in bytes, at least 1.
        seed: as in `generate_stories`.

    Returns:
        The number of stories written.

    Raises:
        UsageError: `num_bytes` or `seed` is out of range.
    """
    if num_bytes < 1:
        raise UsageError(f"{num_bytes} bytes of stories asked for; at least 1 is needed")
    written = 0
    with atomic_write(path) as file:
        for count, story in enumerate(generate_stories(seed), start=1):
            written += file.write(f"{story}\n{END_OF_TEXT}\n".encode())
            if written >= num_bytes:
                return count
    raise AssertionError("unreachable: stories do not end")
