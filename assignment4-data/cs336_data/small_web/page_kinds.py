"""The kinds of pages that the small web has: what each consists of, and how common it is."""

from collections.abc import Callable
from typing import NamedTuple

from cs336_data.small_web.choices import Choices
from cs336_data.small_web.page import Block
from cs336_data.small_web.personal_data import contact_paragraph
from cs336_data.small_web.prose import LANGUAGES, article, phrase

COPIES = {"exact": 0.05, "near": 0.05, "url": 0.02}
"""Shares of pages that repeat an earlier English article."""

FOREIGN_SHARE, PII_SHARE = 0.3, 0.25


class Content(NamedTuple):
    """What a page shows, without its site."""

    title: str
    blocks: tuple[Block, ...]
    language: str = "en"
    pii: dict[str, int] = {}  # noqa: RUF012 - never changed


def article_page(choices: Choices) -> Content:
    """An article in one of seven languages; the English ones may show personal data."""
    language = choices.pick(LANGUAGES[1:]) if choices.happens(FOREIGN_SHARE) else "en"
    title, paragraphs = article(language, choices, choices.whole(3, 7))
    pii: dict[str, int] = {}
    if language == "en" and choices.happens(PII_SHARE):
        contact, pii = contact_paragraph(choices)
        paragraphs.append(contact)
    blocks: tuple[Block, ...] = (Block("p", tuple(paragraphs)),)
    if len(paragraphs) > 4 and language == "en":
        heading = phrase("{What we|What others|Where to} {learned|tried|start}", choices)
        blocks = (Block("p", tuple(paragraphs[:3])), Block("h2", (heading,)), Block("p", tuple(paragraphs[3:])))
    return Content(title, blocks, language, pii)


def short_page(choices: Choices) -> Content:
    """A stub with a sentence or two."""
    return Content(phrase("$thing", choices), (Block("p", (phrase("$stub", choices),)),))


def menu_page(choices: Choices) -> Content:
    """Nothing but links."""
    items = [
        phrase("{$stem$ending|$vegetable|$bird|$building|$dish} {archive|photos|category|page $few|tag}", choices)
        for _ in range(choices.whole(20, 80))
    ]
    return Content("Site map", (Block("ul", tuple(items), linked=True),))


def list_page(choices: Choices) -> Content:
    """A price list or a table of results: figures, hardly a sentence."""
    rows = [
        f"{choices.whole(1, 999)} {phrase('{$thing|$product|$vegetable}', choices)} #{choices.whole(100, 99999)} "
        f"{choices.whole(1, 400)}.{choices.whole(10, 99)} {choices.whole(0, 60)}"
        for _ in range(choices.whole(15, 60))
    ]
    return Content("Price list", (Block("ul", tuple(rows)),))


def code_page(choices: Choices) -> Content:
    """A listing of source code."""
    lines = []
    for _ in range(choices.whole(8, 25)):
        name = f"{choices.pick(('parse', 'load', 'merge', 'check'))}_{choices.pick(('row', 'node', 'key', 'block'))}"
        lines.append(
            choices.pick(
                (
                    f"def {name}(x, y={choices.whole(0, 99)}):\n    return [{name}(i) for i in x if i != y] or None;",
                    f"for (int i = {choices.whole(0, 9)}; i < n; ++i) {{ a[i] += b[i] * {choices.whole(2, 64)}; }}",
                    f"SELECT {name} FROM t{choices.whole(1, 9)} WHERE id = {choices.whole(1, 9999)} && x <> 0;",
                    f"#define {name.upper()} (0x{choices.whole(4096, 65535):04x} << {choices.whole(1, 15)})",
                    f"var {name} = function (e) {{ if (!e) {{ return -1; }} /* {choices.whole(1, 99)} */ }};",
                )
            )
        )
    return Content("Source listing", (Block("pre", ("\n".join(lines),)),))


def spam_page(choices: Choices) -> Content:
    """Keywords over and over."""
    product = phrase("$product", choices)
    paragraphs = []
    for _ in range(choices.whole(3, 8)):
        slogans = [f"{product} {phrase('$slogan', choices)}" for _ in range(choices.whole(8, 20))]
        paragraphs.append(" ".join(slogans) + choices.pick((" ...", "!!!", "")))
    return Content(f"{product} {phrase('$slogan', choices)}", (Block("p", tuple(paragraphs)),))


_MASKS = {"a": "@4", "e": "3", "i": "1!", "o": "0*", "s": "$5", "u": "*"}
_INSULTS = (
    "idiot", "moron", "loser", "imbecile", "clown", "piece of trash", "bastard", "jerk", "damn fool", "asshole",
    "dumbass", "scumbag",
)  # fmt: skip
_INSULTING = (
    "stupid", "pathetic", "worthless", "dumb", "disgusting", "crappy", "ugly", "brainless", "shitty", "fucking",
)  # fmt: skip
_ADULT = (
    "porn", "xxx", "nude", "sexy", "naked girls", "hot milfs", "adult videos", "webcam sex", "erotic", "hardcore",
    "escort", "horny singles", "strip show", "fetish", "hentai", "orgasm",
)  # fmt: skip


def masked_spelling(word: str, choices: Choices) -> str:
    """A word as those write it who hope to pass a filter: "st*pid", "p0rn", "i d i o t"."""
    if choices.happens(0.15):
        return " ".join(word)
    places = [place for place, letter in enumerate(word) if letter in _MASKS]
    if not places:
        return word.upper()
    place = choices.pick(places)
    return word[:place] + choices.pick(_MASKS[word[place]]) + word[place + 1 :]


def _rude(words: tuple[str, ...], choices: Choices) -> str:
    word = choices.pick(words)
    return masked_spelling(word, choices) if choices.happens(0.35) else word


def toxic_page(choices: Choices) -> Content:
    """A quarrel in a comment section."""
    templates = (
        "{name}, you are such a {noun} and everybody in this thread knows it.",
        "What a {adjective} thing to say, {name}. People like you make me sick, you {other} {noun}.",
        "Go away, {noun}. Nobody wants your {adjective} opinion here, {name}.",
        "Only a {noun} would believe that, and {name} is {adjective} and {other} anyway.",
        "Shut up, {name}. Too {adjective} to read, too {other} to think. I hate you, {noun}!",
    )
    comments = []
    for _ in range(choices.whole(6, 14)):
        if choices.happens(0.25):
            comments.append(phrase("$comment", choices))
            continue
        comments.append(
            choices.pick(templates).format(
                name=phrase("$given", choices),
                noun=_rude(_INSULTS, choices),
                adjective=_rude(_INSULTING, choices),
                other=_rude(_INSULTING, choices),
            )
        )
    return Content("Comments", (Block("p", tuple(comments)),))


def nsfw_page(choices: Choices) -> Content:
    """An advertisement of adult content, without detail."""
    templates = (
        "Watch {0} and {1} for free, no signup, only 18+ {2}.",
        "The best {0} in your town: {1}, {2} and more every night.",
        "Thousands of {0} clips, {1} galleries and live {2} chat.",
        "Click for {0}, the hottest {1} archive with daily {2} updates.",
    )
    paragraphs = [
        " ".join(
            choices.pick(templates).format(*(_rude(_ADULT, choices) for _ in range(3)))
            for _ in range(choices.whole(2, 4))
        )
        for _ in range(choices.whole(3, 6))
    ]
    return Content("Adults only", (Block("p", tuple(paragraphs)),))


def empty_page(choices: Choices) -> Content:
    """A page without a byte."""
    return Content("", ())


def long_line_page(choices: Choices) -> Content:
    """Data without line breaks, in a single paragraph of tens of thousands of characters."""
    numbers = " ".join(f"{choices.whole(0, 1 << 30):x}" for _ in range(choices.whole(4_000, 8_000)))
    return Content("Dump", (Block("p", (numbers,)),))


class Kind(NamedTuple):
    """A kind of page: its share of the originals, and what writes it."""

    share: float
    write: Callable[[Choices], Content]


KINDS: dict[str, Kind] = {
    "article": Kind(0.60, article_page),
    "short": Kind(0.05, short_page),
    "menu": Kind(0.07, menu_page),
    "list": Kind(0.05, list_page),
    "code": Kind(0.05, code_page),
    "spam": Kind(0.07, spam_page),
    "toxic": Kind(0.04, toxic_page),
    "nsfw": Kind(0.04, nsfw_page),
    "empty": Kind(0.02, empty_page),
    "long_line": Kind(0.01, long_line_page),
}
