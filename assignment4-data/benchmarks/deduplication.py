"""Time MinHash signatures against datasketch and rensa, and deduplicate 100,000 documents with time and peak memory.

Signatures, from the text of a document to its signature (128 hashes of 5-grams): every tool gets words by our
normalization; the peers get n-grams as Python builds them for them, in their fastest way of calling. Each tool's
estimates are held against the true similarity of documents and changed copies: the error that theory allows is shown.
Then exact-line and fuzzy deduplication of generated documents, 1,000 to a file, and counting lines in memory beside it.
Each run is a fresh process on one core; the tools take turns, medians are shown, CPU seconds count.

    uv run --group benchmarks python benchmarks/deduplication.py            (1 to 2 minutes)
    uv run --group benchmarks python benchmarks/deduplication.py --texts ../shared/data/web/*.jsonl*
    uv run --group benchmarks python benchmarks/deduplication.py --smoke
"""

import argparse
import itertools
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cs336_basics.command_line import UsageError, run_command

NUM_HASHES, NUM_BANDS, NGRAMS, THRESHOLD = 128, 16, 5, 0.8
SIGNED, SMOKE_SIGNED = 1_500, 60
DOCUMENTS, SMOKE_DOCUMENTS = 100_000, 300
_BATCH = 100
"""Documents that a peer gets at a time, where it takes several."""
_SHARD_DOCUMENTS, SHARD = 1000, ".jsonl.zst"
OURS, REFERENCE = "ours", "datasketch, update_batch"
Sign = Callable[[Sequence[str]], np.ndarray]


def ours() -> Sign:
    from cs336_data.dedup.minhash import MinHasher

    hasher = MinHasher(NUM_HASHES, NGRAMS)
    return lambda texts: np.stack([hasher.text_signature(text) for text in texts])


def ngrams(text: str) -> set[str]:
    from cs336_data.dedup.normalization import normalize_text

    words = normalize_text(text).split(" ")
    return {" ".join(words[i : i + NGRAMS]) for i in range(max(1, len(words) - NGRAMS + 1))}


def datasketch(**options) -> Sign:
    from datasketch import MinHash

    empty = MinHash(NUM_HASHES, **options)

    def sign(texts: Sequence[str]) -> np.ndarray:
        signatures = []
        for text in texts:
            signature = empty.copy()  # keeps the hash functions, which take long to draw
            signature.update_batch([gram.encode() for gram in ngrams(text)])
            signatures.append(signature.hashvalues)
        return np.stack(signatures)

    return sign


def datasketch_tuned() -> Sign:
    import xxhash

    return datasketch(scheme="affine32", hashfunc=xxhash.xxh32_intdigest)


def rensa(method: str) -> Sign:
    from rensa import RMinHash

    digest = getattr(RMinHash, method)

    def sign(texts: Sequence[str]) -> np.ndarray:
        rows = []
        for start in range(0, len(texts), _BATCH):
            matrix = digest([ngrams(text) for text in texts[start : start + _BATCH]], NUM_HASHES, 0)
            rows += [matrix.row(i) for i in range(matrix.rows)] if hasattr(matrix, "row") else list(matrix)
        return np.array(rows, np.uint64)

    return sign


TOOLS: dict[str, Callable[[], Sign]] = {
    OURS: ours,
    REFERENCE: datasketch,
    "datasketch, affine32 and xxhash": datasketch_tuned,
    "rensa, RMinHash": lambda: rensa("digests_from_token_sets"),
}


class Run(NamedTuple):
    """One fresh process's result: CPU and wall seconds, peak bytes, and what to compare or show."""

    cpu: float
    wall: float
    peak: int
    result: object


def run(work: Callable[[], object]) -> Run:
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return Run(cpu, wall, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, result)


def sign_all(tool: str, texts: Sequence[str]) -> Run:
    """The result is the tool's estimate of the similarity of texts 0 and 1, 2 and 3, and so on."""
    sign = TOOLS[tool]()
    sign(texts[:2])  # imports and compilation are not what is measured
    signatures: list[np.ndarray] = []
    measured = run(lambda: signatures.append(sign(texts)))
    equal = signatures[0][::2] == signatures[0][1::2]
    return measured._replace(result=equal.mean(axis=1).tolist())


def count_lines_in_memory(files: Sequence[Path], output: Path) -> None:
    """Exact line deduplication as one writes it for a corpus that fits into memory."""
    counts: Counter[bytes] = Counter()
    for path in files:
        counts.update(path.read_bytes().splitlines())
    output.mkdir()
    for path in files:
        lines = path.read_bytes().splitlines(keepends=True)
        (output / path.name).write_bytes(b"".join(line for line in lines if counts[line.rstrip(b"\n")] == 1))


def near_duplicates(shards: Sequence[Path], output: Path) -> None:
    """Fuzzy deduplication of JSON Lines, by the steps that the pipeline runs on many machines."""
    from cs336_data.dedup.matching import join_matches, match, partition_count
    from cs336_data.dedup.minhash import MinHasher
    from cs336_data.dedup.signed_documents import sign_documents
    from cs336_data.pipeline.compressed_json import read_objects, write_objects

    output.mkdir()
    hasher, batches = MinHasher(NUM_HASHES, NGRAMS), [output / shard.stem for shard in shards]
    count = 0
    for shard, batch in zip(shards, batches, strict=True):
        count += sign_documents(batch, (record["text"] for record in read_objects(shard)), hasher, NUM_BANDS)
    partitions = partition_count(batches)
    survivors = join_matches(count, (match(batches, THRESHOLD, k, partitions) for k in range(partitions)))
    stays = iter(survivors == np.arange(count))
    for shard in shards:
        with write_objects(output / shard.name) as file:
            for record in read_objects(shard):
                if next(stays):
                    file.write(record)


def deduplicate(method: str, folder: Path) -> Run:
    """Deduplicate the folder's documents; the result is how many lines or documents are left."""
    from cs336_data.dedup.bloom_lines import bloom_line_deduplication
    from cs336_data.dedup.exact_lines import exact_line_deduplication
    from cs336_data.pipeline.compressed_json import read_lines

    methods: dict[str, tuple[str, Callable[[Sequence[Path], Path], object]]] = {
        "exact lines": (".txt", exact_line_deduplication),
        "lines, Bloom filter": (".txt", bloom_line_deduplication),
        "lines, counted in memory": (".txt", count_lines_in_memory),
        "near-duplicates": (SHARD, near_duplicates),
    }
    suffix, work = methods[method]
    files = sorted(folder.glob(f"*{suffix}"))
    with tempfile.TemporaryDirectory() as name:
        work(files[:1], Path(name) / "warm")  # compile the kernels
        output = Path(name) / "out"
        measured = run(lambda: work(files, output))
        left = sum(1 for path in output.glob(f"*{suffix}") for _ in read_lines(path))
    return measured._replace(result=left)


METHODS = ("exact lines", "lines, Bloom filter", "lines, counted in memory", "near-duplicates")


def measure(work: Callable[..., Run], cases: Sequence[str], argument: object, rounds: int) -> dict[str, list[Run]]:
    """All runs of each case, in fresh processes, taking turns."""
    runs: dict[str, list[Run]] = {case: [] for case in cases}
    for case in tqdm([*cases] * rounds, desc=work.__name__, file=sys.stderr):
        # Not "spawn": on Linux a spawned process is charged with the peak memory of the one that started it.
        with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as process:
            runs[case].append(process.submit(work, case, argument).result())
    return runs


def changed_pairs(count: int) -> list[str]:
    """Generated documents, each followed by a copy in which a stretch of words is replaced."""
    from cs336_data.dedup.sample_documents import generate_documents

    rng = np.random.default_rng(0)
    texts = []
    for document in itertools.islice(generate_documents(), count // 2):
        words = document.split(" ")
        start, length = rng.integers(0, len(words), 2) // 2
        texts += [document, " ".join([*words[:start], *(f"new{i}" for i in range(length)), *words[start + length :]])]
    return texts


def write_corpus(folder: Path, count: int) -> int:
    """The generated documents, so many to a file, as text and as JSON Lines; the text's size in bytes."""
    from cs336_basics.atomic_file import atomic_write
    from cs336_data.dedup.sample_documents import generate_documents
    from cs336_data.pipeline.compressed_json import write_objects

    documents, size = generate_documents(), 0
    for number, start in enumerate(range(0, count, _SHARD_DOCUMENTS)):
        shard = list(itertools.islice(documents, min(_SHARD_DOCUMENTS, count - start)))
        with atomic_write(folder / f"{number:05d}.txt", "w", flush_to_disk=False) as file:
            size += file.write("".join(shard))
        with write_objects(folder / f"{number:05d}{SHARD}") as objects:
            for text in shard:
                objects.write({"text": text})
    return size


def read_texts(paths: Sequence[Path], count: int) -> list[str]:
    from cs336_data.pipeline.compressed_json import read_objects

    texts = [record["text"] for path in paths for record in read_objects(path)][:count]
    return texts[: len(texts) // 2 * 2]


def signature_table(runs: dict[str, list[Run]], texts: Sequence[str]) -> str:
    from cs336_systems.result_table import ResultTable

    sets = [ngrams(text) for text in texts]
    truth = np.array([len(a & b) / len(a | b) for a, b in zip(sets[::2], sets[1::2], strict=True)])
    seconds = {tool: statistics.median(r.cpu for r in results) for tool, results in runs.items()}
    rows = [
        (
            tool,
            f"{len(texts) / seconds[tool]:,.0f}",
            f"{seconds[tool] / seconds[OURS]:.1f}",
            f"{np.sqrt(np.mean((np.array(results[0].result) - truth) ** 2)):.4f}",
            f"{max(r.peak for r in results) / 1e6:.0f}",
        )
        for tool, results in runs.items()
    ]
    theory = np.sqrt(np.mean(truth * (1 - truth)) / NUM_HASHES)
    header = ("tool", "documents per CPU second", "ours is faster, times", f"error (theory {theory:.4f})", "peak MB")
    return ResultTable(header, rows).markdown()


def deduplication_table(runs: dict[str, list[Run]], count: int) -> str:
    from cs336_systems.result_table import ResultTable

    rows = []
    for method, results in runs.items():
        cpu, wall = (statistics.median(getattr(r, name) for r in results) for name in ("cpu", "wall"))
        peak = max(r.peak for r in results) / 1e6
        rows.append(
            (method, f"{cpu:.1f}", f"{wall:.1f}", f"{count / cpu:,.0f}", f"{peak:.0f}", f"{results[0].result:,}")
        )
    header = ("method", "CPU s", "wall s", "documents per CPU second", "peak MB", "lines or documents left")
    return ResultTable(header, rows).markdown()


def main(argv: list[str] | None = None) -> None:
    """Run the command; `argv` without the program's name."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--texts", nargs="+", type=Path, metavar="FILE", help="JSON Lines to sign (None: generated)")
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help="generated documents to deduplicate")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each tool that signs")
    parser.add_argument("--smoke", action="store_true", help="one round, few documents")
    arguments = parser.parse_args(argv)
    rounds = 1 if arguments.smoke else arguments.rounds
    if rounds < 1 or arguments.documents < 10:
        raise UsageError(f"--rounds {rounds} and --documents {arguments.documents} must be at least 1 and 10")
    # Imported here: the fresh processes import this file, and torch's memory is not theirs.
    from cs336_basics.machine import processor_name

    versions = ", ".join(f"{name} {version(name)}" for name in ("numba", "numpy", "datasketch", "rensa"))
    print(f"{processor_name()}, one core; {versions}\n")
    signed = SMOKE_SIGNED if arguments.smoke else SIGNED
    texts = read_texts(arguments.texts, signed) if arguments.texts else changed_pairs(signed)
    size = statistics.mean(map(len, texts))
    print(f"Signatures of {len(texts):,} documents of {size:,.0f} characters on average\n")
    print(signature_table(measure(sign_all, list(TOOLS), texts, rounds), texts))
    with tempfile.TemporaryDirectory() as folder:
        count = SMOKE_DOCUMENTS if arguments.smoke else arguments.documents
        size = write_corpus(Path(folder), count)
        print(f"\nDeduplication of {count:,} documents, {size / 1e6:,.0f} MB, on one core\n")
        print(deduplication_table(measure(deduplicate, METHODS, Path(folder), 1), count))


if __name__ == "__main__":
    run_command(main)
