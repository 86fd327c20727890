"""Time reading of WARC files against warcio and bare FastWARC, and extraction of text against bare Resiliparse.

Each run is a fresh process on one core; the tools take turns, medians are shown, CPU seconds count. The readers read
every record's header, HTTP header and decoded body (bare FastWARC and warcio by their own means); ours also checks
lengths and keeps what damage leaves. All of them must give the same bytes, or nothing is reported.

    uv run python benchmarks/reading.py                                  (about 2 minutes; a small web of 5,000 pages)
    uv run python benchmarks/reading.py --warc CC-MAIN-....warc.gz
    uv run python benchmarks/reading.py --smoke
"""

import argparse
import hashlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from cs336_basics.command_line import UsageError, run_command

NUM_PAGES, SMOKE_PAGES = 5_000, 100


def ours(paths: list[Path], reader: str) -> Iterator[bytes]:
    from cs336_data.web_archive.records import read_records

    for path in paths:
        for record in read_records(path, reader):
            yield record.payload


def bare_fastwarc(paths: list[Path]) -> Iterator[bytes]:
    from fastwarc.warc import ArchiveIterator

    for path in paths:
        for record in ArchiveIterator(str(path), parse_http=True, auto_decode="all"):
            yield record.reader.read()


def bare_warcio(paths: list[Path]) -> Iterator[bytes]:
    from warcio.archiveiterator import ArchiveIterator

    for path in paths:
        with open(path, "rb") as file:
            for record in ArchiveIterator(file):
                yield record.content_stream().read()


READERS: dict[str, Callable[[list[Path]], Iterator[bytes]]] = {
    "ours, through FastWARC": lambda paths: ours(paths, "fastwarc"),
    "ours, through warcio": lambda paths: ours(paths, "warcio"),
    "FastWARC alone": bare_fastwarc,
    "warcio alone": bare_warcio,
}


def read_all(tool: str, paths: list[Path]) -> tuple[int, float, str, int]:
    """Records, CPU seconds, a digest of all payloads, peak bytes: in a fresh process."""
    for _ in READERS[tool](paths[:1]):  # imports are not what is measured
        break
    lengths, digest, start = [], hashlib.blake2b(), time.process_time()
    for payload in READERS[tool](paths):
        lengths.append(len(payload))
        digest.update(payload[:64])
    seconds = time.process_time() - start
    digest.update(repr(lengths).encode())
    return len(lengths), seconds, digest.hexdigest(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


EXTRACTORS = ("ours, all encodings", "Resiliparse alone, UTF-8 only")


def extract_all(tool: str, paths: list[Path]) -> tuple[int, float, str, int]:
    """HTML pages, CPU seconds for decoding and extraction alone, nothing to compare, peak bytes."""
    from resiliparse.extract.html2text import extract_plain_text

    from cs336_data.extraction import extract_text
    from cs336_data.web_archive.records import read_records

    pages, seconds = 0, 0.0
    for path in paths:
        records = [record for record in read_records(path, types=("response",)) if record.media_type == "text/html"]
        start = time.process_time()
        for record in records:
            if tool == EXTRACTORS[0]:
                extract_text(record.payload, record.charset)
            else:
                extract_plain_text(record.payload.decode("utf-8", "replace"))
        seconds += time.process_time() - start
        pages += len(records)
    return pages, seconds, "", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(
    tools: list[str], work: Callable[[str, list[Path]], tuple[int, float, str, int]], paths: list[Path], rounds: int
) -> dict[str, tuple[int, float, int]]:
    """For each tool: items, median CPU seconds, peak bytes."""
    runs: dict[str, list[tuple[int, float, str, int]]] = {tool: [] for tool in tools}
    for tool in tqdm(tools * rounds, desc=work.__name__, file=sys.stderr):
        # Not "spawn": on Linux a spawned process is charged with the peak memory of the one that started it.
        with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as process:
            runs[tool].append(process.submit(work, tool, paths).result())
    if len({(count, digest) for results in runs.values() for count, _, digest, _ in results}) > 1:
        raise UsageError(f"the tools disagree on {', '.join(map(str, paths))}; a damaged file cannot be compared")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return {
        tool: (
            results[0][0],
            statistics.median(seconds for _, seconds, *_ in results),
            max(peak for *_, peak in results) * unit,
        )
        for tool, results in runs.items()
    }


def table(what: str, results: dict[str, tuple[int, float, int]], reference: str) -> str:
    from cs336_systems.result_table import ResultTable

    _, reference_seconds, _ = results[reference]
    rows = [
        (tool, f"{count / seconds:,.0f}", f"{reference_seconds / seconds:.2f}", f"{peak / 1e6:.0f}")
        for tool, (count, seconds, peak) in results.items()
    ]
    return ResultTable(("tool", f"{what} per CPU second", f"against {reference}", "peak MB"), rows).markdown()


def main(argv: list[str] | None = None) -> None:
    """Run the command; `argv` without the program's name."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--warc", nargs="+", type=Path, metavar="FILE", help="files to read (None: a small web)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each tool")
    parser.add_argument("--smoke", action="store_true", help=f"one round on a small web of {SMOKE_PAGES} pages")
    arguments = parser.parse_args(argv)
    rounds = 1 if arguments.smoke else arguments.rounds
    if rounds < 1:
        raise UsageError(f"--rounds is {rounds}; at least 1 is needed")
    # Imported here: the fresh processes import this file, and torch's memory is not theirs.
    from cs336_basics.machine import processor_name
    from cs336_data.small_web import write_small_web

    with tempfile.TemporaryDirectory() as folder:
        paths = arguments.warc
        if not paths:
            paths = write_small_web(
                folder, num_pages=SMOKE_PAGES if arguments.smoke else NUM_PAGES, pages_per_file=1000, progress=True
            )
        versions = ", ".join(f"{name} {version(name)}" for name in ("fastwarc", "resiliparse", "warcio"))
        size = sum(path.stat().st_size for path in paths) / 1e6
        print(f"{processor_name()}, one core; {versions}; {size:.1f} MB in {len(paths)} files\n")
        print(table("records", measure(list(READERS), read_all, paths, rounds), "warcio alone"))
        print()
        print(table("pages", measure(list(EXTRACTORS), extract_all, paths, rounds), EXTRACTORS[1]))


if __name__ == "__main__":
    run_command(main)
