"""Rule filters on the small web, where each page says what it is."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from cs336_data.document import Decision, Document
from cs336_data.extraction import extract_text
from cs336_data.filter_evaluation import Case, Measurement, Settings, measure, rejections
from cs336_data.filters import DEFAULT_CHAIN, make_filter
from cs336_data.small_web.generator import make_page
from cs336_data.small_web.page import Page

SMALL_WEB = "small web"
NO_PROSE = ("short", "menu", "list", "code", "empty", "long_line")


class PageRule(NamedTuple):
    """What a rule filter is for: the kinds of pages it ought to reject, told from English articles."""

    filter_name: str
    options: dict[str, str]
    shown_as: str
    finds: str
    kinds: Collection[str]


RULES = (
    PageRule("c4_lines", {}, "c4_lines", "pages without prose", NO_PROSE),
    PageRule("gopher", {}, "gopher (course)", "pages without prose", NO_PROSE),
    PageRule("gopher", {"rules": "paper"}, "gopher (paper)", "pages without prose", NO_PROSE),
    PageRule("repetition", {}, "repetition", "keywords over and over", ("spam",)),
)


def small_web_pages(settings: Settings) -> Iterator[tuple[Page, Document]]:
    """The pages of the small web and what the pipeline reads from their HTML."""
    for number in range(settings.num_pages):
        page = make_page(settings.seed, number)
        yield page, Document(extract_text(page.html(), page.http_charset or None) or "", page.url)


def is_english_article(page: Page) -> bool:
    """Whether a page is what a corpus of English prose wants."""
    return page.kind == "article" and page.language == "en"


def evaluate_rules(settings: Settings) -> Iterator[Measurement]:
    """Each rule filter on the kinds of pages that it is for, and on English articles."""
    pages = list(small_web_pages(settings))
    for rule in RULES:
        labeled = [
            (document, page.kind in rule.kinds)
            for page, document in pages
            if page.kind in rule.kinds or is_english_article(page)
        ]
        decide = make_filter(rule.filter_name, **rule.options)
        yield measure(rule.shown_as, rule.finds, SMALL_WEB, rejections(decide, labeled))


def evaluate_chain(settings: Settings) -> Iterator[Measurement]:
    """The default chain on all pages: everything but English articles ought to go."""
    filters = [make_filter(name) for name in DEFAULT_CHAIN]

    def cases() -> Iterator[Case]:
        for page, document in small_web_pages(settings):
            decision, text = Decision(True), document.text
            for decide in filters:
                decision = decide(Document(text, document.url))
                if not decision.keep:
                    break
                text = text if decision.text is None else decision.text
            yield Case(not is_english_article(page), not decision.keep, document.text, decision.reason or page.kind)

    yield measure("default chain", "all but English articles", SMALL_WEB, cases())
