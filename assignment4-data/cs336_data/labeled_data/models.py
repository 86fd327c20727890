"""Model-based filters: NSFW and toxic speech on the small web and on tweets, quality on articles and a crawl."""

import csv
import html
from collections.abc import Iterator

from cs336_data.document import Document
from cs336_data.filter_evaluation import Case, Measurement, Settings, measure, rejections
from cs336_data.filters.nsfw import NsfwFilter
from cs336_data.filters.quality import QualityFilter
from cs336_data.filters.safety import SafetyFilter
from cs336_data.filters.toxic import ToxicSpeechFilter
from cs336_data.labeled_data.pages import SMALL_WEB, is_english_article, small_web_pages
from cs336_data.training_sets import is_held_out
from cs336_data.training_texts import read_texts

TWEETS = "toxicity/davidson_labeled_data.csv"
TWEETS_NEITHER = "2"
"""The class of tweets that are neither hate speech nor offensive."""
ARTICLES = ("text/wikitext2_valid.txt", "text/wikitext2_test.txt")
CRAWLS = {"C4": "web/c4_sample.jsonl", "Dolma's Common Crawl": "web/dolma_CC-MAIN-20190717_697docs.jsonl.gz"}
HELD_OUT = 0.5
"""The share that the packaged quality model was not fitted on."""
HELD_OUT_TWEETS = 0.2
"""The share that scripts/train_classifier.py holds out by default."""


def evaluate_safety(settings: Settings) -> Iterator[Measurement]:
    """Each ought to reject its own kind of page of the small web, and no English article."""
    pages = list(small_web_pages(settings))
    for decide in (NsfwFilter(), ToxicSpeechFilter()):
        labeled = (
            (document, page.kind == decide.name)
            for page, document in pages
            if page.kind == decide.name or is_english_article(page)
        )
        yield measure(_shown(decide), f"{decide.name} pages", SMALL_WEB, rejections(decide, labeled))


def evaluate_tweets(settings: Settings) -> Iterator[Measurement]:
    """Tweets that people labeled as hate speech or offensive (Davidson et al. 2017), the held-out part.

    Raises:
        MissingData: they are not among the shared data.
    """
    with open(settings.shared_file(TWEETS), encoding="utf-8", newline="") as file:
        rows = [(html.unescape(row["tweet"]), row["class"] != TWEETS_NEITHER) for row in csv.DictReader(file)]
    labeled = ((Document(text), unsafe) for text, unsafe in rows if is_held_out(text, HELD_OUT_TWEETS))
    decide = ToxicSpeechFilter()
    yield measure(_shown(decide), "offensive tweets", "Davidson's tweets", rejections(decide, labeled))


def evaluate_quality(settings: Settings) -> Iterator[Measurement]:
    """Crawl pages against Wikipedia's articles, those that the packaged model was not fitted on, at two limits.

    Raises:
        MissingData: they are not among the shared data.
    """
    articles = [text for name in ARTICLES for text in _held_out(settings, name)]
    for shown, name in CRAWLS.items():
        crawl = _held_out(settings, name)
        for min_score in (QualityFilter().min_score, 0.5):
            decide = QualityFilter(min_score)
            labeled = [(Document(text), False) for text in articles] + [(Document(text), True) for text in crawl]
            data = f"WikiText-2 and {shown}"
            yield measure(f"quality ({min_score:g})", "crawl pages", data, rejections(decide, labeled))


def evaluate_quality_pages(settings: Settings) -> Iterator[Measurement]:
    """The quality filter ought to reject the small web's English pages that are no articles."""
    decide = QualityFilter()

    def cases() -> Iterator[Case]:
        for page, document in small_web_pages(settings):
            if page.language == "en":
                decision = decide(document)
                yield Case(not is_english_article(page), not decision.keep, document.text, decision.reason or page.kind)

    yield measure(f"quality ({decide.min_score:g})", "English pages, no articles", SMALL_WEB, cases())


def _held_out(settings: Settings, name: str) -> list[str]:
    return [text for text in read_texts(settings.shared_file(name)) if is_held_out(text, HELD_OUT)]


def _shown(decide: SafetyFilter) -> str:
    return f"{decide.name} ({'classifier' if decide.model else 'lexicon'})"
