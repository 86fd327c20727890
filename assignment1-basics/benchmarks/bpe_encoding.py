"""Time encoding against tiktoken, HF tokenizers and gigatoken: same vocabulary, same text, fresh processes, equal ids.

    uv run python benchmarks/bpe_encoding.py
    uv run python benchmarks/bpe_encoding.py --text $CS336_DATA/text/novels/*.txt --vocab-size 10000
    uv run python benchmarks/bpe_encoding.py --gpt2 gpt2_vocab.json gpt2_merges.txt
    uv run python benchmarks/bpe_encoding.py --memory-sizes 100 1000 2000

Every tool reads the text file and writes a file of ids (uint32), in its own way. "Start" is everything before: imports,
loading the vocabulary, a first short text. "Encode" begins with empty caches. Speed is per CPU second, so it is that of
one core.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cs336_basics.bpe.text_blocks import read_blocks
from cs336_basics.command_line import run_command
from cs336_basics.token_file import encode_file
from cs336_basics.tokenizer import END_OF_TEXT, Tokenizer

sys.path.insert(0, str(Path(__file__).parent))
from corpus import read_pieces, write_corpus
from fresh_process import alternating, print_table, report, run_fresh, without_foreign_extensions

FIRST_TEXT = "A first short text."
NAMES = {
    "ours": "cs336_basics",
    "plain": "cs336_basics, plain path",
    "tiktoken": "tiktoken",
    "hf": "HF tokenizers",
    "gigatoken": "gigatoken",
}
Encode = Callable[[str], Iterable[np.ndarray]]
"""The ids of the text at a path, in as many arrays as suits the tool."""


def load_ours(folder: Path) -> Encode:
    without_foreign_extensions()
    from cs336_basics.bpe.fast import FastEncoder

    tokenizer = Tokenizer.from_directory(folder)
    encoder = FastEncoder(tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens)
    encoder.encode(FIRST_TEXT.encode())

    def encode(path: str) -> Iterator[np.ndarray]:
        empty = encoder.clone()
        with open(path, "rb") as file:
            yield from map(empty.encode, read_blocks(file, tokenizer.special_tokens))

    return encode


def load_plain(folder: Path) -> Encode:
    tokenizer = Tokenizer.from_directory(folder)
    return lambda path: (np.fromiter(tokenizer.encode_plain(piece), np.uint32) for piece in read_pieces(path))


def load_tiktoken(folder: Path) -> Encode:
    import tiktoken

    from cs336_basics.bpe.vocab_files import tiktoken_arguments

    tokenizer = Tokenizer.from_directory(folder)
    encoding = tiktoken.Encoding(
        "ours", **tiktoken_arguments(tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens)
    )
    encoding.encode(FIRST_TEXT)
    return lambda path: (encoding.encode_to_numpy(piece, allowed_special="all") for piece in read_pieces(path))


def load_hf(folder: Path) -> Encode:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode(FIRST_TEXT)

    def encode(path: str) -> Iterator[np.ndarray]:
        pieces = (piece.split(END_OF_TEXT) for piece in read_pieces(path))
        documents = ([document + END_OF_TEXT for document in piece[:-1]] + [piece[-1]] for piece in pieces)
        return (np.array(encoding.ids, np.uint32) for batch in documents for encoding in tokenizer.encode_batch(batch))

    return encode


def load_gigatoken(folder: Path) -> Encode:
    import gigatoken

    tokenizer = gigatoken.Tokenizer(str(folder / "tokenizer.json"))
    tokenizer.encode(FIRST_TEXT)
    return lambda path: [np.asarray(tokenizer.encode(Path(path).read_bytes()))]


LOAD: dict[str, Callable[[Path], Encode]] = {
    "ours": load_ours,
    "plain": load_plain,
    "tiktoken": load_tiktoken,
    "hf": load_hf,
    "gigatoken": load_gigatoken,
}


def work(tool: str, folder: Path, path: str) -> None:
    """One run, in this process."""
    encode = LOAD[tool](folder)
    start_cpu, wall = time.process_time(), time.perf_counter()
    with open(folder / "ids", "wb") as file:
        for ids in encode(path):
            ids.astype("<u4", copy=False).tofile(file)
    encode_cpu, wall = time.process_time() - start_cpu, time.perf_counter() - wall
    with open(folder / "ids", "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    report(
        start_cpu=start_cpu,
        encode_cpu=encode_cpu,
        encode_wall=wall,
        num_tokens=(folder / "ids").stat().st_size // 4,
        sha256=digest.hexdigest(),
    )


def work_on_file(folder: Path, path: str) -> None:
    """One run of the tokenizer's command, in this process: from a text file to a file of ids."""
    without_foreign_extensions()
    info = encode_file(Tokenizer.from_directory(folder), path, folder / "ids.dat", progress=False, resume=False)
    report(num_tokens=info.num_tokens)


def measure_memory(arguments: argparse.Namespace, folder: Path, path: Path) -> None:
    """Peak memory of encoding a file into a token file, by size of the file."""
    rows = []
    for megabytes in arguments.memory_sizes:
        write_corpus(path, arguments.text, megabytes * 1_000_000)
        result = run_fresh(__file__, ["--worker", "file", "--folder", str(folder), "--path", str(path)])
        rows.append(
            [str(megabytes), f"{result['num_tokens']:,}", f"{result['peak'] / 1e6:.0f}", f"{result['cpu']:.2f}"]
        )
        print(f"{megabytes} MB: peak {rows[-1][2]} MB", file=sys.stderr)
    print("\nPeak memory of encoding a file into a token file, by size of the text:\n")
    print_table(["text MB", "tokens", "peak MB", "CPU s"], rows)


def make_tokenizer(arguments: argparse.Namespace, folder: Path, path: Path) -> None:
    """Save the tokenizer to be timed: GPT-2's, or one trained on the text."""
    from cs336_basics.bpe.fast import train_bpe_fast
    from cs336_basics.bpe.vocab_files import load_gpt2_files
    from cs336_basics.hf_tokenizer import export_tokenizer

    if arguments.gpt2:
        tokenizer = Tokenizer(*load_gpt2_files(*arguments.gpt2, [END_OF_TEXT]), [END_OF_TEXT])
    else:
        tokenizer = Tokenizer(*train_bpe_fast(path, arguments.vocab_size, [END_OF_TEXT]), [END_OF_TEXT])
    tokenizer.save(folder)
    export_tokenizer(folder, folder, tokenizer.vocab_size, context_length=1024)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", default=[], metavar="FILE", help="texts (default: stories)")
    parser.add_argument("--size-mb", type=int, default=100, help="repeat the text up to this size (default: 100)")
    parser.add_argument("--vocab-size", type=int, default=32_000, help="tokens to train on the text (default: 32000)")
    parser.add_argument("--gpt2", nargs=2, metavar=("VOCAB_JSON", "MERGES_TXT"), help="take this vocabulary instead")
    parser.add_argument(
        "--peers", nargs="*", choices=list(NAMES)[1:], default=["tiktoken", "hf", "gigatoken"],
        help="(default: tiktoken hf gigatoken)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="runs of each tool (default: 3)")
    parser.add_argument(
        "--memory-sizes", type=int, nargs="+", help="only measure our peak memory, for texts of so many MB"
    )
    parser.add_argument("--worker", choices=[*NAMES, "file"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker == "file":
        work_on_file(arguments.folder, arguments.path)
        return
    if arguments.worker:
        work(arguments.worker, arguments.folder, arguments.path)
        return

    from machine import describe_machine

    packages = ["numba", *(peer.replace("hf", "tokenizers") for peer in arguments.peers if peer != "plain")]
    print(describe_machine(os.cpu_count() or 1, "cpu", packages))
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "text"
        write_corpus(path, arguments.text, arguments.size_mb * 1_000_000)
        make_tokenizer(arguments, folder, path)
        common = ["--folder", str(folder), "--path", str(path)]
        run_fresh(__file__, ["--worker", "ours", *common])  # compile the kernels
        if arguments.memory_sizes:
            measure_memory(arguments, folder, path)
            return
        results = alternating(__file__, ["ours", *arguments.peers], common, arguments.rounds)
        size = path.stat().st_size / 1e6
        vocab_size = len(json.loads((folder / "vocab.json").read_text()))
    ours = results["ours"]
    rows = [
        [
            NAMES[tool],
            f"{size / result['encode_cpu']:.1f}",
            f"{ours['encode_cpu'] / result['encode_cpu']:.3g}",
            f"{result['encode_cpu']:.2f}",
            f"{result['start_cpu']:.2f}",
            f"{result['encode_wall']:.2f}",
            f"{result['peak'] / 1e6:.0f}",
            "the same" if result["sha256"] == ours["sha256"] else f"differ ({result['num_tokens']:,.0f})",
        ]
        for tool, result in results.items()
    ]
    print(f"\n{size:.0f} MB of text, vocabulary of {vocab_size}, {ours['num_tokens']:,.0f} tokens:\n")
    print_table(
        ["", "MB per CPU s", "speed ÷ ours", "encode CPU s", "start CPU s", "encode wall s", "peak MB", "ids"], rows
    )


if __name__ == "__main__":
    run_command(main)
