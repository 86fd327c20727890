"""The pages of the small web, by number: each can be made by itself, whatever the others are."""

from dataclasses import replace

from cs336_data.small_web.choices import Choices
from cs336_data.small_web.encodings import choose_encoding
from cs336_data.small_web.page import Block, Page, Site, make_site
from cs336_data.small_web.page_kinds import COPIES, KINDS

PAGES_PER_SITE = 12
_SEARCH_BACK = 200
"""How many pages before its own a copy looks through for an English article to repeat."""


def make_page(seed: int, number: int) -> Page:
    """Page `number` (from 0) of the small web of `seed`."""
    choices = Choices(f"{seed}/kind/{number}")
    duplicate = choices.pick_weighted({**COPIES, "": 1 - sum(COPIES.values())})
    if duplicate and (original := _earlier_article(seed, number, choices)):
        return _copy_of(original, duplicate, seed, number)
    return _original(seed, number)


def _original(seed: int, number: int) -> Page:
    choices = Choices(f"{seed}/page/{number}")
    kind = choices.pick_weighted({name: kind.share for name, kind in KINDS.items()})
    content = KINDS[kind].write(choices)
    site = make_site(seed, int(choices.random() * (1 + number // PAGES_PER_SITE)))
    encoding = choose_encoding(content.language, choices)
    return Page(
        url=f"https://{site.host}/{kind}/{_slug(content.title) or 'page'}-{number}.html",
        kind=kind,
        language=content.language,
        title=content.title,
        blocks=content.blocks,
        site=site,
        pii=content.pii,
        encoding=encoding.codec,
        meta_charset=encoding.meta,
        http_charset=encoding.http,
        broken_bytes=encoding.broken,
    )


def _slug(title: str) -> str:
    return "-".join(
        "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in title.lower()).split()
    )


def _earlier_article(seed: int, number: int, choices: Choices) -> Page | None:
    """An English article among the pages before `number` that is itself no copy."""
    candidates = range(max(number - _SEARCH_BACK, 0), number)
    for earlier in choices.some(candidates, 20):
        if not (page := make_page(seed, earlier)).duplicate and page.kind == "article" and page.language == "en":
            return page
    return None


def _copy_of(original: Page, duplicate: str, seed: int, number: int) -> Page:
    choices = Choices(f"{seed}/copy/{number}")
    copy = replace(original, duplicate=duplicate, duplicate_of=original.url)
    if duplicate == "url":
        return replace(copy, url=_other_spelling(original.url, choices))
    url = f"https://mirror.{original.site.host.removeprefix('www.')}/copy-{number}.html"
    if duplicate == "near":
        copy = replace(copy, blocks=_edited(original.blocks, choices), site=_dated(original.site, choices))
    return replace(copy, url=url)


def _other_spelling(url: str, choices: Choices) -> str:
    """Another address of the same page."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return choices.pick(
        (
            f"http://{rest}",
            f"{scheme}://{rest}?utm_source=feed&utm_medium=rss",
            f"{scheme}://{rest}#comments",
            f"{scheme}://{host.upper()}/{path}",
            f"{scheme}://{host}:443/{path}",
            f"{scheme}://{host.removeprefix('www.')}/{path}",
        )
    )


def _edited(blocks: tuple[Block, ...], choices: Choices) -> tuple[Block, ...]:
    """The blocks with one to three words changed, in the first two paragraphs (personal data stands in the last)."""
    paragraphs = list(blocks[0].items)
    for _ in range(choices.whole(1, 3)):
        place = choices.whole(0, 1)
        words = paragraphs[place].split(" ")
        words[choices.whole(0, len(words) - 1)] = choices.pick(("really", "today", "perhaps", "again", "indeed"))
        paragraphs[place] = " ".join(words)
    return (replace(blocks[0], items=tuple(paragraphs)), *blocks[1:])


def _dated(site: Site, choices: Choices) -> Site:
    return replace(site, footer=(*site.footer, f"Updated {choices.whole(1, 28)}.{choices.whole(1, 12)}.2024"))
