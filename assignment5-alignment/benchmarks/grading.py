"""Our comparison of answers beside math-verify's: how often the two agree, where they do not, and the time of each.

Every answer of a test set is held against itself and against random other answers. The two take turns in one process;
processor time counts, and the median of the rounds is shown.

    uv run --no-sync python benchmarks/grading.py --answers ../shared/data/alignment/math500_test.jsonl    (1 minute)
    uv run --no-sync python benchmarks/grading.py                          (a few answers written here, seconds)
"""

import argparse
import json
import logging
import random
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from cs336_alignment.grading.equivalence import answers_equal
from cs336_basics.command_line import UsageError, run_command
from cs336_basics.machine import machine_description

ANSWERS = ["72", r"\frac{14}{3}", r"3\sqrt{13}", r"(3,4]", r"x^3+3x-6", r"1 \pm \sqrt{19}", r"90^\circ", r"\text{east}"]


def math_verify_equal(answer: str, gold: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}")))


TOOLS: dict[str, Callable[[str, str], bool]] = {"ours": answers_equal, "math-verify": math_verify_equal}


def read_answers(path: Path | None) -> list[str]:
    if path is None:
        return ANSWERS
    try:
        return [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is not a JSONL file whose lines have an 'answer'") from None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=Path, help="JSONL with an 'answer' a line (default: a few written here)")
    parser.add_argument("--pairs", type=int, default=500, help="pairs of random answers (default: 500)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each tool (default: 3)")
    arguments = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    answers = read_answers(arguments.answers)
    random_numbers = random.Random(0)
    pairs = [(answer, answer) for answer in answers]
    pairs += [tuple(random_numbers.sample(answers, 2)) for _ in range(arguments.pairs)]

    verdicts: dict[str, list[bool]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in TOOLS}
    for compare in TOOLS.values():
        compare("1", r"\frac{2}{2}")  # loads what it needs
    for _ in range(arguments.rounds):
        for name, compare in TOOLS.items():
            start = time.process_time()
            verdicts[name] = [compare(*pair) for pair in pairs]
            seconds[name].append(time.process_time() - start)

    ours, peer = verdicts["ours"], verdicts["math-verify"]
    for (answer, gold), our_verdict, peer_verdict in zip(pairs, ours, peer, strict=True):
        if our_verdict != peer_verdict:
            print(f"ours {our_verdict}, math-verify {peer_verdict}: {answer} | {gold}")
    agreeing = sum(a == b for a, b in zip(ours, peer, strict=True))
    machine = ", ".join(f"{key} {value}" for key, value in machine_description().items())
    print(f"\n{machine}, math-verify {version('math-verify')}")
    print(f"{len(pairs)} pairs, {agreeing} verdicts agree ({agreeing / len(pairs):.1%})\n")
    print("| comparison | equal | μs a pair | times ours |\n|---|---:|---:|---:|")
    medians = {name: statistics.median(times) / len(pairs) * 1e6 for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"| {name} | {sum(verdicts[name])} | {median:.0f} | {median / medians['ours']:.1f} |")


if __name__ == "__main__":
    run_command(main)
