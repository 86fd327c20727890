"""Time the filters against datatrove's blocks for the same rules, on the same documents, and compare the decisions.

Gopher's quality rules, Gopher's repetition rules and C4's line rules, with the same limits, each alone on all
documents, and the three as a chain that stops at the first rejection; then our whole default chain, filter by filter.
Each run is a fresh process on one core; the tools take turns, medians are shown, CPU seconds count. datatrove gets our
words, so that the rules alone differ; with spaCy installed, it also runs as it comes.

    uv run --group benchmarks python benchmarks/filter_chain.py               (at most 2 minutes)
    uv run --group benchmarks python benchmarks/filter_chain.py --documents ../shared/data/web/*
    uv run --group benchmarks python benchmarks/filter_chain.py --smoke
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from cs336_basics.command_line import UsageError, run_command

NUM_PAGES, SMOKE_PAGES = 1_000, 60
TIME_LIMIT_SECONDS = 120
OURS, PEER, PEER_DEFAULT = "ours", "datatrove, our words", "datatrove, spaCy"
RULES = ("c4_lines", "gopher", "repetition")
CHAIN = "all three"


_SENTENCE = re.compile(r"\S.*?(?:[.!?…]+(?=\s|\Z)|\Z)", re.DOTALL)


class Run(NamedTuple):
    """One fresh process's result.

    Attributes:
        seconds: CPU seconds for every stage.
        kept: for every stage and document, whether it stays; in the chain, what is left after it.
    """

    seconds: dict[str, float]
    kept: dict[str, list[bool]]


def our_rules() -> dict[str, Callable[[str], tuple[bool, str]]]:
    """Each rule set as a function from a text to whether it stays and the text to go on with."""
    from cs336_data.document import Document
    from cs336_data.filters import make_filter

    options = {"c4_lines": {"min_line_words": 3, "min_sentences": 5}, "gopher": {"rules": "paper"}, "repetition": {}}

    def rule(name: str) -> Callable[[str], tuple[bool, str]]:
        decide = make_filter(name, **options[name])

        def apply(text: str) -> tuple[bool, str]:
            decision = decide(Document(text))
            return decision.keep, text if decision.text is None else decision.text

        return apply

    return {name: rule(name) for name in RULES}


def their_rules(tool: str) -> dict[str, Callable[[str], tuple[bool, str]]]:
    """The same of datatrove's blocks, called without its pipeline around them."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.utils.word_tokenizers import WordTokenizer

    from cs336_data.words import words_of

    class OurWords(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return words_of(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return _SENTENCE.findall(text)

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [match.span() for match in _SENTENCE.finditer(text)]

    language = {} if tool == PEER_DEFAULT else {"language": OurWords()}
    blocks = {
        # Rules that ours does not have are off: citations, phrases of policies, words over 1,000 characters.
        "c4_lines": C4QualityFilter(remove_citations=False, filter_policy=False, max_word_length=-1, **language),
        "gopher": GopherQualityFilter(**language),
        "repetition": GopherRepetitionFilter(**language),
    }

    def rule(name: str) -> Callable[[str], tuple[bool, str]]:
        def apply(text: str) -> tuple[bool, str]:
            document = Document(text=text, id="")
            return blocks[name].filter(document) is True, document.text

        return apply

    return {name: rule(name) for name in RULES}


def run_rules(tool: str, texts: Sequence[str]) -> Run:
    """In a fresh process: every rule set on every text, then the chain."""
    rules = our_rules() if tool == OURS else their_rules(tool)
    for apply in rules.values():
        apply("A text, so that whatever is loaded at first use is loaded now. " * 20)
    seconds, kept = Counter(), {}
    for name, apply in rules.items():
        start = time.process_time()
        kept[name] = [apply(text)[0] for text in texts]
        seconds[name] = time.process_time() - start
    start = time.process_time()
    kept[CHAIN] = [_passes(rules.values(), text) for text in texts]
    seconds[CHAIN] = time.process_time() - start
    return Run(dict(seconds), kept)


def _passes(rules: Iterable[Callable[[str], tuple[bool, str]]], text: str) -> bool:
    for apply in rules:
        is_kept, text = apply(text)
        if not is_kept:
            return False
    return True


def run_default_chain(_: str, texts: Sequence[str]) -> Run:
    """In a fresh process: our default chain, as the pipeline runs it."""
    from cs336_data.document import Document
    from cs336_data.filters import DEFAULT_CHAIN
    from cs336_data.pipeline.chain import FilterSpec, build_chain

    chain = build_chain(tuple(map(FilterSpec, DEFAULT_CHAIN)))
    seconds: Counter[str] = Counter()
    start = time.process_time()
    kept = [chain(Document(text), seconds).rejected_by is None for text in texts]
    return Run({**seconds, "the whole chain": time.process_time() - start}, {"the whole chain": kept})


def measure(
    work: Callable[[str, Sequence[str]], Run], tools: Sequence[str], texts: Sequence[str], rounds: int, deadline: float
) -> dict[str, Run]:
    """For each tool the median seconds; rounds after the first are left out once the deadline has passed."""
    runs: dict[str, list[Run]] = {tool: [] for tool in tools}
    for number in tqdm(range(rounds), desc=work.__name__, file=sys.stderr):
        for tool in tools:
            if number == 0 or time.monotonic() < deadline:
                with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as process:
                    runs[tool].append(process.submit(work, tool, texts).result())
    return {
        tool: Run(
            {stage: statistics.median(run.seconds[stage] for run in results) for stage in results[0].seconds},
            results[0].kept,
        )
        for tool, results in runs.items()
    }


def comparison(results: dict[str, Run], count: int) -> str:
    """Documents per second and agreement, rule set by rule set."""
    from cs336_systems.result_table import ResultTable

    ours = results[OURS]
    table = ResultTable(("rules", "tool", "documents per CPU second", "ours is faster by", "kept", "same decision"))
    for stage in ours.seconds:
        for tool, run in results.items():
            agreement = sum(a == b for a, b in zip(ours.kept[stage], run.kept[stage], strict=True)) / count
            factor = run.seconds[stage] / ours.seconds[stage]
            row = (stage, tool, count / run.seconds[stage], f"{factor:.2f}", sum(run.kept[stage]), f"{agreement:.1%}")
            table.rows.append(row)
    return table.markdown()


def breakdown(run: Run, count: int) -> str:
    """Our default chain, filter by filter."""
    from cs336_systems.result_table import ResultTable

    whole = run.seconds["the whole chain"]
    rows = [
        (stage, 1000 * seconds / count, f"{seconds / whole:.1%}", count / seconds)
        for stage, seconds in run.seconds.items()
    ]
    return ResultTable(("filter", "CPU ms per page", "share", "pages per CPU second"), rows).markdown()


def read_texts(documents: Sequence[Path], num_pages: int) -> list[str]:
    """The texts of the files, or of a small web."""
    from cs336_data.pipeline.inputs import find_units
    from cs336_data.pipeline.pages import PageCounts, read_pages
    from cs336_data.small_web import write_small_web

    with tempfile.TemporaryDirectory() as folder:
        paths = documents or write_small_web(folder, num_pages=num_pages, progress=True)
        pages = (page for unit in find_units(paths) for page in read_pages(unit.path, PageCounts()))
        return [text for page in pages if (text := page.extract()) and text.strip()]


def main(argv: list[str] | None = None) -> None:
    """Run the command; `argv` without the program's name."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--documents", nargs="+", type=Path, metavar="FILE", help="archives or JSON Lines (None: a small web)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of each tool")
    parser.add_argument("--smoke", action="store_true", help=f"one round on a small web of {SMOKE_PAGES} pages")
    arguments = parser.parse_args(argv)
    rounds = 1 if arguments.smoke else arguments.rounds
    if rounds < 1:
        raise UsageError(f"--rounds is {rounds}; at least 1 is needed")
    from cs336_basics.machine import processor_name

    deadline = time.monotonic() + 0.6 * TIME_LIMIT_SECONDS  # what has begun is finished
    texts = read_texts(arguments.documents or [], SMOKE_PAGES if arguments.smoke else NUM_PAGES)
    if not texts:
        raise UsageError(f"{', '.join(map(str, arguments.documents))} hold no document with text")
    tools = [OURS, PEER] + [PEER_DEFAULT] * bool(find_spec("spacy"))
    characters = sum(map(len, texts)) / 1e6
    print(f"{processor_name()}, one core; datatrove {version('datatrove')}; ", end="")
    print(f"{len(texts):,} documents, {characters:.1f} million characters\n")
    print(comparison(measure(run_rules, tools, texts, rounds, deadline), len(texts)))
    print()
    print(breakdown(measure(run_default_chain, [OURS], texts, rounds, deadline)[OURS], len(texts)))


if __name__ == "__main__":
    run_command(main)
