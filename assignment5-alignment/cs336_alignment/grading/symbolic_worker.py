"""The process that asks math-verify: reads questions from standard input, answers on standard output.

One JSON array [answer, gold, seconds] a line in, `true` or `false` a line out; before the first, `ready`. A question
that takes longer than its seconds of processor time ends the process: the timer's signal keeps its default action, so
that the operating system kills, even in the midst of one long operation on a huge integer, which no exception from a
Python handler interrupts. Processor time makes the verdict the same on a busy machine.
"""

import json
import logging
import resource
import signal
import sys

from math_verify import parse, verify

MEMORY_LIMIT = 4 * 2**30
"""Bytes of address space of the process."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; the end of input ends this process
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    logging.disable(logging.CRITICAL)
    math_verify_equal(r"\frac{1}{2}", "0.5")  # what is loaded at the first question is not its fault
    print("ready", flush=True)
    for line in sys.stdin:
        answer, gold, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        equal = math_verify_equal(answer, gold)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(equal), flush=True)


def math_verify_equal(answer: str, gold: str) -> bool:
    """What math-verify says of two answers in LaTeX, without a time limit; False where it fails."""
    try:
        parsed = [parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in (gold, answer)]
        return bool(verify(*parsed, timeout_seconds=None))
    except Exception:  # whatever a parser of arbitrary strings may raise
        return False


if __name__ == "__main__":
    main()
