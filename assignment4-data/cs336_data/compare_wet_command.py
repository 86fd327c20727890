"""The command that compares our extraction with Common Crawl's: a table on the screen and an HTML report."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Plot

from cs336_basics.command_line import UsageError
from cs336_basics.curves import figure_png, tidy
from cs336_basics.report import Figure, Section, Table, Text, format_cell, write_report
from cs336_data.wet_comparison import Comparison, PageComparison, compare_archives, wet_path_of

MEASURES = {
    "precision": "our words that the WET text has",
    "recall": "words of the WET text that ours has",
    "f1": "harmonic mean of the two",
    "order": "5-word shingles in common (Jaccard)",
}
SHOWN_LINES = 12
SMOKE_PAGES, DEFAULT_PAGES = 40, 400


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare our text of web pages with the text in the WET files made from the same pages. Without "
        "files it writes and compares the small web.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--warc", nargs="+", type=Path, metavar="FILE", help="WARC files")
    parser.add_argument(
        "--wet", nargs="+", type=Path, metavar="FILE", help="WET files (None: X.warc.wet.gz beside X.warc.gz)"
    )
    parser.add_argument("--out", type=Path, default=Path("data/wet_comparison"), help="folder for report.html")
    parser.add_argument("--worst", type=int, default=10, help="pages to show in detail, the most different first")
    parser.add_argument("--smoke", action="store_true", help=f"a small web of {SMOKE_PAGES} pages")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` without the program's name."""
    arguments = _parser().parse_args(argv)
    if arguments.worst < 0:
        raise UsageError(f"--worst is {arguments.worst}; 0 or more pages can be shown")
    warc = arguments.warc or _small_web(arguments.out, arguments.smoke)
    wet = arguments.wet or [wet_path_of(path) for path in warc]
    comparison = compare_archives(warc, wet)
    if not comparison.pages:
        raise UsageError(
            f"{', '.join(map(str, wet))} and {', '.join(map(str, warc))} have no page in common; the WET file of each "
            "WARC file is needed"
        )
    table = _summary(comparison)
    width = max(len(label) for label, _ in table.rows)
    print("\n".join(f"{label:{width}}  {format_cell(value)}" for label, value in table.rows))
    report = arguments.out / "report.html"
    _write(report, comparison, table, arguments.worst)
    print(f"report: {report}")


def _small_web(folder: Path, smoke: bool) -> list[Path]:
    from cs336_data.small_web import write_small_web

    return write_small_web(folder / "small_web", num_pages=SMOKE_PAGES if smoke else DEFAULT_PAGES)


def _summary(comparison: Comparison) -> Table:
    rows: list[tuple[str, object]] = [
        ("pages compared", len(comparison.pages)),
        ("HTML pages without WET text", len(comparison.only_warc)),
        ("WET texts without HTML page", len(comparison.only_wet)),
    ]
    rows += [(f"mean {name}: {meaning}", comparison.mean(name)) for name, meaning in MEASURES.items()]
    return Table(("measure", "value"), rows)


def _write(path: Path, comparison: Comparison, summary: Table, worst: int) -> None:
    ordered = sorted(comparison.pages, key=lambda page: page.f1)
    header = ("page", "our words", "WET words", *MEASURES)
    rows = [(page.url, page.our_words, page.wet_words, *(getattr(page, name) for name in MEASURES)) for page in ordered]
    sections = [
        Section("Summary", [summary, Figure(_histogram(comparison), "How many pages are how alike.")]),
        Section("Most different pages", [Table(header, rows[:100])]),
        *(_details(page) for page in ordered[:worst]),
    ]
    write_report(path, "Our extraction and Common Crawl's", sections)


def _histogram(comparison: Comparison) -> bytes:
    plot = Plot(figsize=(7, 3))
    axes = plot.add_subplot()
    for name in ("recall", "precision", "order"):
        values = [getattr(page, name) for page in comparison.pages]
        axes.hist(values, bins=20, range=(0, 1), histtype="step", label=name)
    tidy(axes, "similarity", "pages")
    axes.legend()
    return figure_png(plot)


def _details(page: PageComparison) -> Section:
    blocks = [
        Text("\n".join((f"Only in {where}:", *(line[:200] for line in lines[:SHOWN_LINES]))), preformatted=True)
        for where, lines in (("ours", page.only_ours), ("the WET text", page.only_wet))
        if lines
    ]
    return Section(page.url, blocks or [Text("The same lines.")])
