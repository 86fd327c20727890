"""The command that deduplicates files (`scripts/deduplicate.py`): lines or whole documents."""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_data.dedup.bloom_lines import DEFAULT_FALSE_POSITIVE_RATE, bloom_line_deduplication
from cs336_data.dedup.exact_lines import exact_line_deduplication
from cs336_data.dedup.input_files import batches, check_inputs
from cs336_data.dedup.line_removal import LineCounts
from cs336_data.dedup.lsh import candidate_probability
from cs336_data.dedup.minhash_documents import NearDuplicates, minhash_deduplication
from cs336_data.dedup.sample_documents import write_documents
from cs336_data.executor_flags import add_executor_flags, executor_opener
from cs336_data.pipeline.inputs import find_units

METHODS = ("minhash", "exact", "bloom")
DEFAULT_OUT = Path("data/deduplicated")
SAMPLE = Path("data/dedup_sample")
SAMPLE_SIZE, SMOKE_SIZE = 2000, 200


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Remove repetitions from a set of files. Kept files, or what is left of them, are written under "
        "their own names. The same command goes on where a run was interrupted.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="*", help=f"files, folders or globs of text; without any, documents made for it in {SAMPLE}"
    )
    parser.add_argument("--out", type=Path, help=f"folder to write; None: {DEFAULT_OUT}")
    parser.add_argument(
        "--method", choices=METHODS, default="minhash",
        help="minhash: one file of each cluster of near-duplicates stays; exact: lines that occur more than once lose "
        "all their copies; bloom: the same in fixed memory, with a few lines too many removed",
    )  # fmt: skip
    near = parser.add_argument_group("minhash")
    near.add_argument("--num_hashes", type=int, default=100, help="length of a signature")
    near.add_argument("--num_bands", type=int, default=20, help="bands of a signature; must divide --num_hashes")
    near.add_argument("--ngrams", type=int, default=5, help="words of a shingle")
    near.add_argument("--jaccard_threshold", type=float, default=0.8, help="least similarity of duplicates, in (0, 1]")
    near.add_argument("--seed", type=int, default=0, help="of the hash functions")
    near.add_argument("--removed", type=Path, help="file to write: each removed file, a tab, and the one that stayed")
    bloom = parser.add_argument_group("bloom")
    bloom.add_argument("--expected_lines", type=int, help="different lines to make room for; None: counted first")
    bloom.add_argument(
        "--false_positive_rate", type=float, default=DEFAULT_FALSE_POSITIVE_RATE,
        help="share of the lines occurring once that may be removed too",
    )  # fmt: skip
    parser.add_argument(
        "--smoke", action="store_true", help=f"{SMOKE_SIZE} documents made for it, in folders of their own"
    )
    add_executor_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = _parser().parse_args(argv)
    if arguments.removed is not None and arguments.method != "minhash":
        raise UsageError(f"--removed lists documents, which --method {arguments.method} does not remove")
    arguments.out = arguments.out or (DEFAULT_OUT / "smoke" if arguments.smoke else DEFAULT_OUT)
    if arguments.inputs:
        inputs = [Path(unit.path) for unit in find_units(arguments.inputs)]
    else:
        folder, count = (SAMPLE / "smoke", SMOKE_SIZE) if arguments.smoke else (SAMPLE, SAMPLE_SIZE)
        inputs = write_documents(folder, count)
        print(f"no inputs given: taking {count:,} documents made for it, in {folder}")
    files = check_inputs(inputs, arguments.out)
    start = time.perf_counter()
    with _executor(arguments, files) as executor:
        if arguments.method == "minhash":
            _report_documents(_deduplicate_documents(files, arguments, executor), arguments)
        else:
            _report_lines(_deduplicate_lines(files, arguments, executor))
    print(f"wrote {arguments.out} in {time.perf_counter() - start:.1f} s")


def _executor(arguments: argparse.Namespace, files: list[Path]) -> AbstractContextManager[Executor | None]:
    open_executor = executor_opener(arguments, arguments.out.with_name(f"{arguments.out.name}_slurm_jobs"))
    # Starting processes takes longer than a single task.
    is_small = arguments.executor == "local" and len(batches(files)) == 1
    return nullcontext() if is_small else open_executor()


def _deduplicate_documents(
    files: list[Path], arguments: argparse.Namespace, executor: Executor | None
) -> NearDuplicates:
    return minhash_deduplication(
        files,
        arguments.num_hashes,
        arguments.num_bands,
        arguments.ngrams,
        arguments.jaccard_threshold,
        arguments.out,
        seed=arguments.seed,
        executor=executor,
        progress=not arguments.quiet,
    )


def _deduplicate_lines(files: list[Path], arguments: argparse.Namespace, executor: Executor | None) -> LineCounts:
    if arguments.method == "exact":
        return exact_line_deduplication(files, arguments.out, executor=executor, progress=not arguments.quiet)
    return bloom_line_deduplication(
        files,
        arguments.out,
        expected_lines=arguments.expected_lines,
        false_positive_rate=arguments.false_positive_rate,
        executor=executor,
        progress=not arguments.quiet,
    )


def _report_documents(result: NearDuplicates, arguments: argparse.Namespace) -> None:
    if arguments.removed is not None:
        with atomic_write(arguments.removed, "w") as file:
            file.writelines(f"{removed}\t{kept}\n" for removed, kept in sorted(result.removed.items()))
    chance = candidate_probability(arguments.jaccard_threshold, arguments.num_hashes, arguments.num_bands)
    clusters = len(set(result.removed.values()))
    print(
        f"{len(result.removed):,} of {result.documents:,} documents removed, from {clusters:,} clusters "
        f"(a pair of similarity {arguments.jaccard_threshold:g} is found with probability {chance:.3f})"
    )


def _report_lines(counts: LineCounts) -> None:
    share = counts.removed / max(1, counts.lines)
    print(f"{counts.removed:,} of {counts.lines:,} lines removed ({share:.1%})")
