"""The story generator: same seed, same text; every story is well-formed English."""

import hashlib
import itertools
import random
import re
import subprocess
import sys

import pytest

from cs336_basics import stories
from cs336_basics.command_line import UsageError
from cs336_basics.stories import END_OF_TEXT, generate_stories, generate_story, write_stories

SAMPLE = list(itertools.islice(generate_stories(5), 1500))
PLURAL_FOODS = "pancakes|muffins|cookies"


def test_same_seed_same_stories_in_another_process_and_under_another_hash_seed():
    program = (
        "import itertools, hashlib; from cs336_basics.stories import generate_stories;"
        "print(hashlib.sha256('|'.join(itertools.islice(generate_stories(5), 1500)).encode()).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": "77"}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == hashlib.sha256("|".join(SAMPLE).encode()).hexdigest()


def test_other_seeds_give_other_stories():
    others = set(itertools.islice(generate_stories(6), 1500))
    assert len(set(SAMPLE)) == len(SAMPLE)
    assert others.isdisjoint(SAMPLE)


def test_lengths_and_vocabulary():
    lengths = [len(story.split()) for story in SAMPLE]
    assert min(lengths) >= 80
    assert max(lengths) <= 300
    assert max(lengths) - min(lengths) > 80
    words = set(re.findall(r"[a-z']+", " ".join(SAMPLE).lower()))
    assert 1500 <= len(words) <= 2500


def test_sentences_vary_more_than_a_few_templates_would():
    sentences = [sentence for story in SAMPLE for sentence in re.split(r"(?<=[.!?]) |\n+", story)]
    assert len(set(sentences)) > 0.35 * len(sentences)


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a double space", r"  "),
        ("a space before punctuation", r" [.,!?;:]"),
        ("doubled punctuation", r"[.,!?]{2}"),
        ("a line's stray space", r"^ | $"),
        ("grammar notation", r"[{}|<>$@^¶/_]"),
        ("a before a vowel", r"\b[Aa] (?!uni|use|one\b)[aeiou]"),
        ("an before a consonant", r"\b[Aa]n (?!hour|honest)[^aeiou]"),
        ("a small letter that starts a sentence", r"[.!?] \"?[a-z]"),
        ("a small letter that starts a paragraph", r"(?m)^\"?[a-z]"),
        ("a capital in the middle of a word", r"[a-z][A-Z]"),
        ("a doubled word", r"(?i)\b(the|an|and|to|was|of|in|she|he|his)\b \1\b"),
        ("a speaker before an unfinished quotation", r"\w\" (said|asked|cried)"),
        ("a full stop after a quotation", r"\"\."),
        ("a plural noun with a verb for one", rf"\b({PLURAL_FOODS}|berries|leaves|plants|children) (was|is|has)\b"),
        ("a verb for one before a plural noun", rf"\bthere (was|is) (some )?({PLURAL_FOODS})\b"),
        ("it for food that may be many", r"it tasted|It was (ready|done|warm and sweet|not pretty|the best they)"),
        ("a speaker called it", r"\" it (said|asked|cried|replied)\b"),
        ("a pronoun with the wrong verb", r"(?i)\b((he|she|it) (were|have|are)|(they|we|you) (was|has|is))\b"),
        (
            "a statement with a question mark",
            r"\"(We|Nobody|Hold|Listen|Lovely|Come on|I|Look|Go|Let us|You are)\b[^\".!?]*\?",
        ),
        ("a question without its mark", r"\"(Can|May|Are|Is|Did|Have|Where|Who|Why|What (is|are))\b[^\"?!]*[.,]\""),
    ],
)
def test_no_story_has(what, pattern):
    faulty = [story for story in SAMPLE if re.search(pattern, story, re.MULTILINE)]
    assert not faulty, f"{what} in: {faulty[0]}"


def test_quotes_balance_in_every_paragraph_and_every_paragraph_ends():
    for story in SAMPLE:
        for paragraph in story.split("\n\n"):
            assert paragraph.count('"') % 2 == 0, paragraph
            assert re.search(r"[.!?]\"?$", paragraph), paragraph


def test_names_keep_their_pronouns():
    """In a story whose only person is its hero, the other gender's pronouns never appear."""
    grammar = stories._story_grammar()
    all_names = {"".join(name[0]) for rule in ("girl", "boy", "nickname") for name in grammar[rule].alternatives}
    checked = 0
    for story in SAMPLE:
        hero = re.search(r"(girl|boy) (?:named|called) (\w+)", story)
        names = set(re.findall(r"[A-Z]\w+", story)) & all_names
        relatives = re.search(
            r"mom|mother|dad|father|grand|aunt|uncle|sister|Mr|Miss|Granny|Captain|baby|queen|king|wizard", story
        )
        if hero and names == {hero[2]} and not relatives:
            checked += 1
            wrong = r"\b(he|him|his)\b" if hero[1] == "girl" else r"\b(she|her)\b"
            assert not re.search(wrong, story, re.IGNORECASE), story
    assert checked >= 5


def test_every_rule_is_reachable_and_every_reference_resolves():
    grammar = stories._story_grammar()
    seen, waiting, forms_seen = set(), ["story"], set()

    def references(sequence):
        for part in sequence:
            if isinstance(part, stories._Choice):
                for option in part.options:
                    yield from references(option)
            elif isinstance(part, stories._Fresh):
                yield part.rule
            elif isinstance(part, stories._Remembered):
                assert part.key in grammar[part.rule].keys, part
                forms_seen.add(part.key)
                yield part.rule

    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for alternative in grammar[name].alternatives:
            assert len(alternative) == len(grammar[name].keys), (name, alternative)
            for form in alternative:
                waiting.extend(references(form))
    assert seen == set(grammar)
    assert {key for rule in grammar.values() for key in rule.keys[1:]} <= forms_seen


def test_generate_story_advances_the_generator():
    rng = random.Random(0)
    assert generate_story(rng) != generate_story(rng)


def test_write_stories(tmp_path):
    path = tmp_path / "new" / "stories.txt"
    count = write_stories(path, 50_000, seed=3)
    text = path.read_text(encoding="utf-8")
    documents = text.split(f"\n{END_OF_TEXT}\n")
    assert documents.pop() == ""
    assert len(documents) == count
    assert documents == list(itertools.islice(generate_stories(3), count))
    assert 50_000 <= path.stat().st_size < 53_000
    assert [file.name for file in path.parent.iterdir()] == ["stories.txt"]


@pytest.mark.parametrize(("num_bytes", "seed", "value"), [(0, 1, "0 bytes"), (10, -4, "seed -4")])
def test_bad_arguments_are_named(tmp_path, num_bytes, seed, value):
    with pytest.raises(UsageError, match=value):
        write_stories(tmp_path / "x.txt", num_bytes, seed)
    assert not list(tmp_path.iterdir())
