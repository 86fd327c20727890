"""Time the rule filters against datatrove's blocks: the same rules, limits and documents, one core, in turns.

datatrove's blocks run with our words and sentences instead of a tokenizer's, so that only the rules are compared, and,
where spaCy is installed, also as they come. How many documents each keeps, and on how many both agree, is shown beside.

    uv run --group benchmarks python benchmarks/rule_filters.py                (about 2 minutes; 2,000 small-web pages)
    uv run --group benchmarks python benchmarks/rule_filters.py --jsonl documents.jsonl
    uv run --group benchmarks python benchmarks/rule_filters.py --smoke
"""

import argparse
import importlib.util
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from cs336_basics.command_line import UsageError, run_command
from cs336_basics.machine import processor_name
from cs336_data.document import Document
from cs336_data.filter_evaluation import Settings
from cs336_data.filters import make_filter
from cs336_data.labeled_data.pages import small_web_pages
from cs336_data.words import words_of
from cs336_systems.result_table import ResultTable

NUM_PAGES, SMOKE_PAGES = 2_000, 50
SENTENCE = re.compile(r"[^.!?…]+(?:[.!?…]+|\Z)")
Decide = Callable[[str], bool]
FILTERS = {
    "gopher (paper)": ("gopher", {"rules": "paper"}),
    "repetition": ("repetition", {}),
    "c4_lines": ("c4_lines", {}),
}


def our_filter(shown_as: str) -> Decide:
    name, options = FILTERS[shown_as]
    decide = make_filter(name, **options)
    return lambda text: decide(Document(text)).keep


def datatrove_filter(shown_as: str, own_tokenizer: bool) -> Decide:
    from datatrove.data import Document as Block
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.utils.typeshelper import Languages
    from datatrove.utils.word_tokenizers import WordTokenizer

    class OurWords(WordTokenizer):
        def word_tokenize(self, text):
            return words_of(text)

        def sent_tokenize(self, text):
            return [text[start:end] for start, end in self.span_tokenize(text)]

        def span_tokenize(self, text):
            return [match.span() for match in SENTENCE.finditer(text)]

    language = Languages.english if own_tokenizer else OurWords()
    decide = {
        "gopher (paper)": lambda: GopherQualityFilter(language=language),
        "repetition": lambda: GopherRepetitionFilter(language=language),
        "c4_lines": lambda: C4QualityFilter(
            language=language, min_num_sentences=3, min_words_per_line=5, remove_citations=False, filter_policy=False
        ),
    }[shown_as]()
    # A document without any word divides by zero in datatrove's rules; it is told apart before them.
    return lambda text: bool(words_of(text)) and decide.filter(Block(text=text, id="")) is True


def read_texts(arguments: argparse.Namespace) -> list[str]:
    if arguments.jsonl:
        with open(arguments.jsonl, encoding="utf-8") as file:
            return [json.loads(line)["text"] for line in file]
    pages = SMOKE_PAGES if arguments.smoke else NUM_PAGES
    return [document.text for _, document in small_web_pages(Settings(num_pages=pages))]


def compare(shown_as: str, texts: Sequence[str], rounds: int) -> list[tuple[str | float | int, ...]]:
    tools = {"ours": our_filter(shown_as), "datatrove, our words": datatrove_filter(shown_as, own_tokenizer=False)}
    if importlib.util.find_spec("spacy"):
        tools["datatrove, spaCy"] = datatrove_filter(shown_as, own_tokenizer=True)
    seconds: dict[str, list[float]] = {tool: [] for tool in tools}
    kept: dict[str, list[bool]] = {}
    for decide in tools.values():  # imports and models are not what is measured
        decide(texts[0])
    for tool in tqdm(list(tools) * rounds, desc=shown_as, file=sys.stderr):
        start = time.process_time()
        kept[tool] = [tools[tool](text) for text in texts]
        seconds[tool].append(time.process_time() - start)
    medians = {tool: statistics.median(runs) for tool, runs in seconds.items()}
    rows = []
    for tool in tools:
        agreement = sum(map(bool.__eq__, kept[tool], kept["ours"])) / len(texts)
        speed, ratio = round(len(texts) / medians[tool]), round(medians[tool] / medians["ours"], 2)
        rows.append((shown_as, tool, speed, ratio, sum(kept[tool]), f"{agreement:.1%}"))
    return rows


def main(argv: list[str] | None = None) -> None:
    """Run the command; `argv` without the program's name."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help='documents with a "text" (None: the small web)')
    parser.add_argument("--rounds", type=int, default=5, help="runs of each tool")
    parser.add_argument("--smoke", action="store_true", help=f"one round on {SMOKE_PAGES} pages of the small web")
    arguments = parser.parse_args(argv)
    rounds = 1 if arguments.smoke else arguments.rounds
    if rounds < 1:
        raise UsageError(f"--rounds is {rounds}; at least 1 is needed")
    if not importlib.util.find_spec("datatrove"):
        raise UsageError("datatrove is not installed: run `uv sync --group benchmarks`")
    texts = read_texts(arguments)
    if not texts:
        raise UsageError(f"{arguments.jsonl} holds no document")
    mean = sum(map(len, texts)) / len(texts)
    machine = f"{processor_name()}, one core; datatrove {version('datatrove')}"
    print(f"{machine}; {len(texts):,} documents of {mean:,.0f} characters on average\n")
    header = ("rules", "tool", "documents per CPU second", "time against ours", "kept", "same verdict as ours")
    print(ResultTable(header, [row for name in FILTERS for row in compare(name, texts, rounds)]).markdown())


if __name__ == "__main__":
    run_command(main)
