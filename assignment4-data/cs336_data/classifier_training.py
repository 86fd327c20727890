"""The command that trains the filters' models: quality, toxic speech, NSFW, n-gram perplexity, importance weights."""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cs336_basics.command_line import UsageError
from cs336_data.fasttext_model import train_classifier
from cs336_data.filters.nsfw import NSFW
from cs336_data.filters.quality import CC, WIKI, classify_quality
from cs336_data.filters.safety import Topic, classify
from cs336_data.filters.toxic import TOXIC
from cs336_data.importance_weights import fit_importance_model
from cs336_data.ngram_model import train_ngram_model
from cs336_data.quality_model import save_model
from cs336_data.quality_training import fit_quality_model
from cs336_data.training_sets import (
    Example,
    Split,
    labeled_examples,
    paired_examples,
    shapeless_pages,
    small_web_examples,
    split,
)

SMALL_WEB_PAGES, SMOKE_PAGES = 600, 200
TOPICS: dict[str, Topic] = {"nsfw": NSFW, "toxic": TOXIC}
SUFFIXES = {"quality": ".bin", "toxic": ".bin", "nsfw": ".bin", "perplexity": ".npz", "importance": ".npz"}


class Score(NamedTuple):
    """How a classifier does on examples: the positives among what it found, and the found among the positives."""

    precision: float
    recall: float
    positives: int
    negatives: int

    def __str__(self) -> str:
        examples = f"{self.positives} positive and {self.negatives} negative texts"
        return f"precision {self.precision:.3f}, recall {self.recall:.3f} on {examples}"


def score(is_positive: Callable[[str], bool], examples: Sequence[Example]) -> Score:
    """Ask a classifier for each example; shares of nothing are NaN."""
    answers = [(truth, is_positive(text)) for truth, text in examples]
    hits = sum(truth and found for truth, found in answers)
    found, positives = sum(found for _, found in answers), sum(truth for truth, _ in answers)
    nan = float("nan")
    return Score(
        hits / found if found else nan, hits / positives if positives else nan, positives, len(answers) - positives
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Train one model on the files given, or on the small web, and say how it does on held-out texts."""
    args = _parser().parse_args(argv)
    if not 0 <= args.held_out < 1:
        raise UsageError(f"--held_out {args.held_out} is out of range: it must be at least 0 and less than 1")
    on_small_web = not (args.reference or args.crawl or args.labeled)
    parts = split(_examples(args, on_small_web), args.held_out)
    out = args.out or _default_out(args, on_small_web)
    if on_small_web:
        print(f"no data given: training on the small web; filters take {out} only when it is named")
    TRAINERS[args.task](args, parts, out)
    print(f"wrote {out} ({os.path.getsize(out) / 1e6:.2f} MB)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=main.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, prog="train_classifier.py"
    )
    add = parser.add_argument
    add("task", nargs="?", choices=tuple(SUFFIXES), default="quality", help="what to train")
    formats = "(WARC, WET, JSON lines, CSV, TSV, text; perhaps compressed)"
    add("--reference", nargs="+", default=[], metavar="FILE", help=f"pages to aim at: works of reference {formats}")
    add("--crawl", nargs="+", default=[], metavar="FILE", help=f"pages as they come {formats}")
    add("--labeled", nargs="+", default=[], metavar="FILE", help="toxic, nsfw: tables, or fastText lines (.txt)")
    add("--text_field", default="text", metavar="NAME", help="column of the text in tables and JSON lines")
    add("--label_field", default="label", metavar="NAME", help="column of the label")
    add("--unsafe_labels", nargs="+", default=["1", "nsfw", "toxic"], metavar="LABEL", help="labels that mean unsafe")
    add("--kind", choices=("fasttext", "statistics"), default="fasttext", help="quality: which classifier")
    add("--out", metavar="FILE", help="the model; by default data/models/TASK.*, where filters find it")
    add("--held_out", type=float, default=0.2, metavar="SHARE", help="share of the texts to measure on")
    add("--learning_rate", type=float, default=0.5, help="fastText: halved where it leads to NaN")
    add("--epochs", type=int, default=10, help="fastText: passes over the texts")
    add("--threads", type=int, default=1, help="fastText: with 1 the same seed gives the same model")
    add("--order", type=int, default=5, help="perplexity: longest n-gram, in words")
    add("--vocabulary", type=int, default=65_536, metavar="WORDS", help="perplexity: the most frequent words")
    add("--buckets", type=int, default=10_000, help="importance: hash buckets of n-grams")
    add("--keep", type=float, default=0.1, metavar="SHARE", help="importance: share of the crawl to keep")
    add("--seed", type=int, default=0, help="of everything random")
    add("--smoke", action="store_true", help="a smaller small web")
    return parser


def _examples(args: argparse.Namespace, on_small_web: bool) -> list[Example]:
    if on_small_web:
        kind = args.task if args.task in TOPICS else "article"
        return list(small_web_examples(kind, SMOKE_PAGES if args.smoke else SMALL_WEB_PAGES, args.seed))
    if args.task in TOPICS:
        if not args.labeled or args.reference or args.crawl:
            raise UsageError(f"{args.task} is trained on --labeled files, not on --reference and --crawl")
        return list(labeled_examples(args.labeled, args.text_field, args.label_field, args.unsafe_labels))
    if args.labeled or not (args.reference and args.crawl):
        raise UsageError(f"{args.task} is trained on --reference and --crawl files, and needs both")
    return list(paired_examples(args.reference, args.crawl, args.text_field))


def _default_out(args: argparse.Namespace, on_small_web: bool) -> Path:
    suffix = ".json" if args.task == "quality" and args.kind == "statistics" else SUFFIXES[args.task]
    return Path("data/models", f"{'small-web-' if on_small_web else ''}{args.task}{suffix}")


def _train_fasttext(args: argparse.Namespace, train: Sequence[Example], labels: tuple[str, str], out: Path) -> None:
    positive, negative = labels
    rate = train_classifier(
        ((positive if truth else negative, text) for truth, text in train),
        out,
        learning_rate=args.learning_rate,
        epochs=args.epochs,
        threads=args.threads,
        seed=args.seed,
    )
    print(f"trained on {len(train)} texts with learning rate {rate:g}")


def _train_safety(args: argparse.Namespace, parts: Split, out: Path) -> None:
    topic = TOPICS[args.task]
    _train_fasttext(args, parts.train, topic.labels, out)
    for name, model in (("classifier", out), ("lexicon", "")):
        result = score(lambda text, model=model: classify(text, topic, model)[0] == topic.unsafe, parts.held_out)
        print(f"{name}, {topic.unsafe}: {result}")


def _train_quality(args: argparse.Namespace, parts: Split, out: Path) -> None:
    if args.kind == "fasttext":
        _train_fasttext(args, parts.train, (WIKI, CC), out)
    else:
        reference, crawl = _sides(parts.train)
        shapeless = shapeless_pages(SMOKE_PAGES if args.smoke else SMALL_WEB_PAGES, args.seed)
        model = fit_quality_model(reference, crawl + shapeless, args.seed)
        provenance = {
            "made_by": "scripts/train_classifier.py quality --kind statistics",
            "reference": [Path(path).name for path in args.reference],
            "crawl": [Path(path).name for path in args.crawl],
            "reference_texts": len(reference),
            "crawl_texts": len(crawl),
            "small_web_pages_without_prose": len(shapeless),
            "held_out": args.held_out,
            "seed": args.seed,
        }
        save_model(model, out, provenance)
    print(f"classifier, {WIKI}: {score(lambda text: classify_quality(text, out)[0] == WIKI, parts.held_out)}")


def _train_perplexity(args: argparse.Namespace, parts: Split, out: Path) -> None:
    reference, _ = _sides(parts.train)
    held_out_reference, held_out_crawl = _sides(parts.held_out)
    model = train_ngram_model(reference, order=args.order, max_vocabulary=args.vocabulary)
    model = model.with_buckets(held_out_crawl or _sides(parts.train)[1])
    model.save(out)
    print(f"{json.dumps(model.sizes())} n-grams by order; head up to {model.head:.1f}, middle up to {model.middle:.1f}")
    for name, texts in (("reference", held_out_reference), ("crawl", held_out_crawl)):
        if texts:
            print(f"{name}: perplexity {model.corpus_perplexity(texts):.1f} on {len(texts)} held-out texts")


def _train_importance(args: argparse.Namespace, parts: Split, out: Path) -> None:
    model = fit_importance_model(*_sides(parts.train), num_buckets=args.buckets, keep_share=args.keep, seed=args.seed)
    model.save(out)
    for name, texts in zip(("reference", "crawl"), _sides(parts.held_out), strict=True):
        kept = sum(model.is_kept(text) for text in texts)
        print(f"{name}: {kept} of {len(texts)} held-out texts kept")


TRAINERS: dict[str, Callable[[argparse.Namespace, Split, Path], None]] = {
    "quality": _train_quality,
    "toxic": _train_safety,
    "nsfw": _train_safety,
    "perplexity": _train_perplexity,
    "importance": _train_importance,
}


def _sides(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    """The positive and the negative texts."""
    return [text for truth, text in examples if truth], [text for truth, text in examples if not truth]
