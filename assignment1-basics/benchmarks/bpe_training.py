"""Time BPE training against HF tokenizers, gigatoken and rustbpe, on the same text, each run in a fresh process.

    uv run python benchmarks/bpe_training.py
    uv run python benchmarks/bpe_training.py --text $CS336_DATA/text/novels/*.txt --vocab-size 10000 32000
    uv run python benchmarks/bpe_training.py --memory-sizes 100 1000 2000

The tools take turns; the table holds medians. Ours has compiled its kernels before (the first run of all says so).
"Warm" is a second training in a process that has trained once, as in a notebook.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cs336_basics.bpe.pretokenize import GPT2_PATTERN
from cs336_basics.command_line import run_command
from cs336_basics.tokenizer import END_OF_TEXT

sys.path.insert(0, str(Path(__file__).parent))
from corpus import read_pieces, write_corpus
from fresh_process import alternating, print_table, report, run_fresh, without_foreign_extensions

NAMES = {
    "ours": "cs336_basics",
    "plain": "cs336_basics, plain path",
    "hf": "HF tokenizers",
    "gigatoken": "gigatoken",
    "rustbpe": "rustbpe",
}
Merges = list[tuple[bytes, bytes]]


def train_ours(path: str, vocab_size: int) -> Merges:
    without_foreign_extensions()
    from cs336_basics.bpe.fast import train_bpe_fast

    return train_bpe_fast(path, vocab_size, [END_OF_TEXT])[1]


def train_plain(path: str, vocab_size: int) -> Merges:
    from cs336_basics.bpe.plain_train import train_bpe_plain

    return train_bpe_plain(path, vocab_size, [END_OF_TEXT])[1]


def train_hf(path: str, vocab_size: int) -> Merges:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from cs336_basics.bpe.vocab_files import byte_characters

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((piece.split(END_OF_TEXT) for piece in read_pieces(path)), trainer)
    byte_of = byte_characters()[1]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(bytes(byte_of[character] for character in token) for token in pair) for pair in merges]


def train_gigatoken(path: str, vocab_size: int) -> Merges:
    import gigatoken

    _, merges = gigatoken.train_bpe(Path(path), vocab_size, [END_OF_TEXT], tie_breaking="assembled_bytes")
    return [(bytes(left), bytes(right)) for left, right in merges]


def train_rustbpe(path: str, vocab_size: int) -> Merges:
    """Its ranks hold no pairs, so each merge is given as the token it makes, with an empty right part."""
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    documents = (document for piece in read_pieces(path) for document in piece.split(END_OF_TEXT))
    tokenizer.train_from_iterator(documents, vocab_size - 1, pattern=GPT2_PATTERN)
    ranks = sorted(tokenizer.get_mergeable_ranks(), key=lambda entry: entry[1])
    return [(bytes(token), b"") for token, _ in ranks[256:]]


TRAIN: dict[str, Callable[[str, int], Merges]] = {
    "ours": train_ours,
    "plain": train_plain,
    "hf": train_hf,
    "gigatoken": train_gigatoken,
    "rustbpe": train_rustbpe,
}


def work(tool: str, path: str, vocab_size: int, warm: bool) -> None:
    """One run, in this process."""
    merges = TRAIN[tool](path, vocab_size)
    warm_cpu = warm_wall = None
    if warm:
        start, start_cpu = time.perf_counter(), time.process_time()
        TRAIN[tool](path, vocab_size)
        warm_cpu, warm_wall = time.process_time() - start_cpu, time.perf_counter() - start
    report(merges=[[left.hex(), right.hex()] for left, right in merges], warm_cpu=warm_cpu, warm_wall=warm_wall)


def compare_merges(ours: list[list[str]], theirs: list[list[str]]) -> str:
    """In one cell: whether the merges are the same, or which one differs first."""
    for number, ((left, right), (other_left, other_right)) in enumerate(zip(ours, theirs, strict=False), start=1):
        if left + right != other_left + other_right:
            return f"differ from merge {number}"
        if other_right and (left, right) != (other_left, other_right):
            return f"differ from merge {number}"
    if len(ours) != len(theirs):
        return f"same, but {len(theirs)} of {len(ours)}"
    return "the same"


def compare_tools(arguments: argparse.Namespace, path: Path) -> None:
    """One table for each vocabulary size."""
    tools = ["ours", *arguments.peers]
    for vocab_size in arguments.vocab_size:
        results = alternating(__file__, tools, ["--path", str(path), "--vocab-size", str(vocab_size)], arguments.rounds)
        ours = results["ours"]
        rows = [
            [
                NAMES[tool],
                f"{result['cpu']:.2f}",
                f"{result['cpu'] / ours['cpu']:.1f}",
                f"{result['wall']:.2f}",
                f"{result['wall'] / ours['wall']:.1f}",
                f"{result['peak'] / 1e6:.0f}",
                "" if tool == "ours" else compare_merges(ours["merges"], result["merges"]),
            ]
            for tool, result in results.items()
        ]
        print(f"\nVocabulary of {vocab_size}, {path.stat().st_size / 1e6:.0f} MB of text, fresh processes:\n")
        print_table(["", "CPU s", "× ours", "wall s", "× ours", "peak MB", "merges"], rows)

        warm = ["--path", str(path), "--vocab-size", str(vocab_size), "--warm"]
        pair = [tool for tool in ("ours", "hf") if tool in tools]
        results = alternating(__file__, pair, warm, arguments.rounds)
        rows = [
            [
                NAMES[tool],
                f"{result['warm_cpu']:.2f}",
                f"{result['warm_cpu'] / results['ours']['warm_cpu']:.1f}",
                f"{result['warm_wall']:.2f}",
            ]
            for tool, result in results.items()
        ]
        print("\nThe second training in one process (warm):\n")
        print_table(["", "CPU s", "× ours", "wall s"], rows)


def measure_memory(arguments: argparse.Namespace, path: Path) -> None:
    """Peak memory of our training by size of the file."""
    rows = []
    for megabytes in arguments.memory_sizes:
        write_corpus(path, arguments.text, megabytes * 1_000_000)
        for vocab_size in arguments.vocab_size:
            result = run_fresh(__file__, ["--worker", "ours", "--path", str(path), "--vocab-size", str(vocab_size)])
            rows.append([str(megabytes), str(vocab_size), f"{result['peak'] / 1e6:.0f}", f"{result['cpu']:.2f}"])
            print(f"{megabytes} MB: peak {rows[-1][2]} MB", file=sys.stderr)
    print("\nPeak memory by size of the text:\n")
    print_table(["text MB", "vocabulary", "peak MB", "CPU s"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", default=[], metavar="FILE", help="texts (default: stories)")
    parser.add_argument("--size-mb", type=int, default=100, help="repeat the text up to this size (default: 100)")
    parser.add_argument("--vocab-size", type=int, nargs="+", default=[10_000, 32_000], help="(default: 10000 32000)")
    parser.add_argument(
        "--peers", nargs="*", choices=list(NAMES)[1:], default=["hf", "gigatoken", "rustbpe"],
        help="(default: hf gigatoken rustbpe)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="runs of each tool (default: 3)")
    parser.add_argument(
        "--memory-sizes", type=int, nargs="+", help="only measure our peak memory, for texts of so many MB"
    )
    parser.add_argument("--worker", choices=list(NAMES), help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        work(arguments.worker, arguments.path, arguments.vocab_size[0], arguments.warm)
        return

    from machine import describe_machine

    packages = ["numba", "tokenizers", *(peer for peer in arguments.peers if peer in ("gigatoken", "rustbpe"))]
    print(describe_machine(os.cpu_count() or 1, "cpu", packages))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text"
        write_corpus(path, arguments.text, 1_000_000)
        run_fresh(__file__, ["--worker", "ours", "--path", str(path), "--vocab-size", "1000"])  # compile the kernels
        if arguments.memory_sizes:
            measure_memory(arguments, path)
            return
        write_corpus(path, arguments.text, arguments.size_mb * 1_000_000)
        compare_tools(arguments, path)


if __name__ == "__main__":
    run_command(main)
