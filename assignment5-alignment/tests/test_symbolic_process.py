"""math-verify behind a time limit: its verdicts, and that threads, processes and endless questions get an answer."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from math_verify import parse, verify

from cs336_alignment.drgrpo_grader import question_only_reward_fn
from cs336_alignment.grading import symbolic
from cs336_alignment.grading.equivalence import compare_answers
from cs336_alignment.grading.symbolic import symbolically_equal

PAIRS = [
    (r"\int_0^1 x\,dx", r"\frac{1}{2}", True),
    (r"\sum_{k=1}^{3} k", "6", True),
    (r"\sum_{k=1}^{3} k", "7", False),
    (r"\int_0^1 x\,dx", "1", False),
]


@pytest.mark.parametrize(("answer", "gold", "equal"), PAIRS)
def test_verdicts_are_those_of_math_verify_in_this_process(answer, gold, equal):
    assert verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}")) == equal
    assert symbolically_equal(answer, gold) == equal


@pytest.mark.parametrize(("answer", "gold", "equal"), PAIRS)
def test_the_slow_reward_reads_what_the_fast_one_cannot(answer, gold, equal):
    assert compare_answers(answer, gold) is None
    response = rf"So it is \boxed{{{answer}}}."
    assert question_only_reward_fn(response, gold, fast=True)["reward"] == 0.0
    assert question_only_reward_fn(response, gold, fast=False)["reward"] == float(equal)


@pytest.mark.parametrize("answer", ["9^{9^{9^{9}}}", "1000000000!"])
def test_an_endless_question_is_given_up_and_the_next_one_answered(answer):
    assert symbolically_equal(answer, "1", 0.5) is False
    assert symbolically_equal(*PAIRS[1][:2]) is True


def test_a_worker_that_was_killed_is_replaced():
    symbolically_equal.cache_clear()
    assert symbolically_equal(*PAIRS[0][:2]) is True
    (*_, worker) = symbolic._idle._workers
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    symbolically_equal.cache_clear()
    assert symbolically_equal(*PAIRS[0][:2]) is True


def test_threads_ask_side_by_side():
    symbolically_equal.cache_clear()
    questions = [(rf"\sum_{{k=1}}^{{{n}}} k", str(n * (n + 1) // 2 + n % 2)) for n in range(2, 10)]
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda question: symbolically_equal(*question), questions))
    assert verdicts == [n % 2 == 0 for n in range(2, 10)]
    assert len(symbolic._idle._workers) <= (os.cpu_count() or 1)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_daemonic_processes_ask_workers_of_their_own(method):
    assert symbolically_equal(*PAIRS[1][:2]) is True
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(symbolically_equal, (r"\sum_{k=1}^{4} k", "10")) is True
    assert symbolically_equal(r"\sum_{k=1}^{5} k", "15") is True


def test_very_long_answers_are_not_handed_over():
    assert symbolically_equal(r"\sum_{k=1}^{3} k" + " " * 1_000, "6") is False


def test_strings_that_are_no_text_are_answered():
    for answer in ("\ud800", "\x00", "\n", "{", "\\"):
        assert symbolically_equal(answer, "1") is False
